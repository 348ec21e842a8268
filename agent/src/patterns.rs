//! Which files below a directory are meant, said in patterns.

use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

/// Patterns of paths below a directory: `*` and `?` stop at a `/`, `**` does not, `[ab]` and `{a,b}` stand for one of them. One whose last
/// part has none of these, or that ends in `/`, stands for a file, or for all that is below a directory.
#[derive(Debug, Clone)]
pub struct Patterns {
    /// Of files.
    files: GlobSet,
    /// Of directories that are taken whole.
    whole: GlobSet,
    bases: Vec<PathBuf>,
    depth: Option<usize>,
}

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NotAPattern {
    /// Its beginning.
    pub pattern: String,
    /// What is wrong with it.
    pub message: String,
}

impl Patterns {
    /// Most that are looked for together.
    pub const MOST: usize = 100;
    /// The longest, in bytes.
    pub const LONGEST: usize = 1024;

    /// Reads them. None of them leads out of the directory.
    pub fn parse<S: AsRef<str>>(patterns: &[S]) -> Result<Self, NotAPattern> {
        if patterns.is_empty() || patterns.len() > Self::MOST {
            return Err(wrong("", format!("1 to {} patterns are looked for", Self::MOST)));
        }
        let (mut files, mut whole, mut bases) = (GlobSetBuilder::new(), GlobSetBuilder::new(), Vec::new());
        let mut depth = Some(0);
        for pattern in patterns {
            let pattern = pattern.as_ref();
            let normal = normal(pattern)?;
            let glob = GlobBuilder::new(&normal).literal_separator(true).build();
            let glob = glob.map_err(|error| wrong(pattern, error.kind().to_string()))?;
            let plain = |part: &&str| !part.contains(['*', '?', '[', '{', '\\']);
            let parts: Vec<&str> = normal.split('/').collect();
            if pattern.ends_with('/') || parts.last().is_some_and(plain) {
                whole.add(glob.clone());
            }
            files.add(glob);
            // A `/` within braces has no fixed depth.
            let fixed = (!normal.contains("**") && !normal.contains('{')).then_some(parts.len());
            depth = depth.zip(fixed).map(|(most, fixed)| most.max(fixed));
            bases.push(parts.into_iter().take_while(|part| plain(part)).collect::<PathBuf>());
        }
        bases.sort();
        bases.dedup_by(|below, above| below.starts_with(above));
        let built = |set: GlobSetBuilder| set.build().map_err(|error| wrong("", error.kind().to_string()));
        Ok(Self { files: built(files)?, whole: built(whole)?, bases, depth })
    }

    /// Whether a file is meant, by its path below the directory, itself or with a directory that it is in.
    pub fn take(&self, below: &Path) -> bool {
        self.take_file(below) || below.ancestors().skip(1).any(|above| self.take_whole(above))
    }

    /// Whether a file is meant by itself.
    pub fn take_file(&self, below: &Path) -> bool {
        self.files.is_match(below)
    }

    /// Whether a directory is meant with all that is in it.
    pub fn take_whole(&self, below: &Path) -> bool {
        self.whole.is_match(below)
    }

    /// Where they begin: the longest beginnings without a wildcard, none below another.
    pub fn bases(&self) -> &[PathBuf] {
        &self.bases
    }

    /// How many parts the path of a file has at most that is meant by itself, where that is known.
    pub fn depth(&self) -> Option<usize> {
        self.depth
    }
}

/// A pattern that leads nowhere but down.
fn normal(pattern: &str) -> Result<String, NotAPattern> {
    if pattern.is_empty() || pattern.len() > Patterns::LONGEST {
        return Err(wrong(pattern, format!("a pattern has 1 to {} bytes", Patterns::LONGEST)));
    }
    let outside = || wrong(pattern, "a pattern is a path below the directory".to_owned());
    if pattern.contains('\0') || pattern.starts_with('/') {
        return Err(outside());
    }
    let mut parts = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(outside()),
            part => parts.push(part),
        }
    }
    // All of it.
    Ok(if parts.is_empty() { "**".to_owned() } else { parts.join("/") })
}

fn wrong(pattern: &str, message: String) -> NotAPattern {
    NotAPattern { pattern: pattern.chars().take(100).collect(), message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_take_files_and_directories() {
        let takes = |pattern: &str, path: &str| Patterns::parse(&[pattern]).unwrap().take(Path::new(path));
        for (pattern, yes, no) in [
            ("*.txt", "a.txt", "b/a.txt"),
            ("**/*.txt", "a.txt", "a.txt/b"),
            ("out/*", "out/a", "out/a/b"),
            ("out", "out/a/b", "outer"),
            ("out/", "out/a/b", "outer"),
            ("./out//x", "out/x", "out/y"),
            ("o*/", "out/x/y", "in/x"),
            ("{a,b}/c", "b/c", "c/c"),
        ] {
            assert!(takes(pattern, yes), "{pattern} {yes}");
            assert!(!takes(pattern, no), "{pattern} {no}");
        }
        assert!(takes(".", "a/b/c"));
        for wrong in ["", "/a", "../a", "a/..", "a\0", "[", "{a", &"x".repeat(1025)] {
            assert!(Patterns::parse(&[wrong]).is_err(), "{wrong}");
        }
        assert!(Patterns::parse::<&str>(&[]).is_err() && Patterns::parse(&["x"; 101]).is_err());
        let patterns = Patterns::parse(&["a/b/*.c", "a/b", "d/x*/y"]).unwrap();
        assert_eq!(patterns.bases(), [Path::new("a/b"), Path::new("d")]);
        assert_eq!(patterns.depth(), Some(3));
        assert_eq!(Patterns::parse(&["a", "**/b"]).unwrap().depth(), None);
    }
}
