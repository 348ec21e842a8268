use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

use agent::protocol::{FileErrorKind, FileRefusal};
use globset::{GlobBuilder, GlobMatcher};

use super::list::Names;

/// Paths looked at before giving up: `/**` in a big image must end in time.
const MOST_VISITED: usize = 1_000_000;
/// Bytes of paths that wait to be looked at: so many in one directory that their names alone would take all memory.
const MOST_WAITING: usize = 64 << 20;

/// Absolute paths that match, sorted. `*` and `?` stop at a `/`, `**` does not; symlinks match, but are not
/// descended into.
pub fn glob(workspace: &Path, pattern: &str) -> Result<Vec<OsString>, FileRefusal> {
    let full = absolute(workspace, pattern);
    let invalid = |error: globset::Error| FileRefusal {
        kind: FileErrorKind::InvalidPath,
        path: pattern.to_owned(),
        message: error.kind().to_string(),
    };
    let matcher = GlobBuilder::new(&full).literal_separator(true).build().map_err(invalid)?.compile_matcher();
    let base = literal_base(&full);
    // Without `**` nothing deeper than the pattern can match; a `/` within braces has no fixed depth.
    let depth = (!full.contains("**") && !full.contains('{')).then(|| full.matches('/').count());
    let mut walk = Walk { matcher, depth, seen: 0, names: Names::default(), shown: pattern };
    walk.visit(base)?;
    let mut paths = walk.names.found;
    paths.sort_unstable();
    Ok(paths)
}

struct Walk<'a> {
    matcher: GlobMatcher,
    depth: Option<usize>,
    seen: usize,
    names: Names,
    shown: &'a str,
}

impl Walk<'_> {
    fn visit(&mut self, base: PathBuf) -> Result<(), FileRefusal> {
        let mut waiting = base.as_os_str().len();
        let mut open = vec![base];
        while let Some(path) = open.pop() {
            waiting = waiting.saturating_sub(path.as_os_str().len());
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let depth = path.components().count() - 1;
            let descends = metadata.is_dir() && self.depth.is_none_or(|most| depth < most);
            let inside = descends.then(|| fs::read_dir(&path)).into_iter().flatten().flatten().flatten();
            for found in inside {
                self.seen += 1;
                let found = found.path();
                waiting += found.as_os_str().len();
                if self.seen > MOST_VISITED || waiting > MOST_WAITING {
                    let message =
                        format!("the pattern leads past more than {MOST_VISITED} paths, or too long ones");
                    let path = self.shown.to_owned();
                    return Err(FileRefusal { kind: FileErrorKind::TooMany, path, message });
                }
                open.push(found);
            }
            if self.matcher.is_match(&path) {
                self.names.add(path, self.shown)?;
            }
        }
        Ok(())
    }
}

/// The pattern from the root on, without `.` and `..`.
fn absolute(workspace: &Path, pattern: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    if !pattern.starts_with('/') {
        parts = workspace
            .components()
            .filter(|component| matches!(component, Component::Normal(_)))
            .map(|component| globset::escape(&component.as_os_str().to_string_lossy()))
            .collect();
    }
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part.to_owned()),
        }
    }
    format!("/{}", parts.join("/"))
}

/// The directory below which everything that matches lies, or the one path that can match.
fn literal_base(full: &str) -> PathBuf {
    let literal = |part: &&str| !part.contains(['*', '?', '[', '{', '\\']) || is_escaped(part);
    let parts = full.split('/').filter(|part| !part.is_empty()).take_while(literal);
    parts.fold(PathBuf::from("/"), |base, part| base.join(unescape(part)))
}

/// Whether every special character stands in brackets of its own, as `globset::escape` writes it.
fn is_escaped(part: &str) -> bool {
    globset::escape(&unescape(part)) == part
}

fn unescape(part: &str) -> String {
    let mut plain = String::new();
    let mut characters = part.chars();
    while let Some(character) = characters.next() {
        if character == '[' {
            plain.extend(characters.next());
            characters.next();
        } else {
            plain.push(character);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_begin_at_the_workspace_and_have_a_literal_base() {
        let workspace = Path::new("/work [1]/space");
        for (pattern, full, base) in [
            ("*.py", "/work [[]1[]]/space/*.py", "/work [1]/space"),
            ("./a/../b/**/c", "/work [[]1[]]/space/b/**/c", "/work [1]/space/b"),
            ("/etc/pass*", "/etc/pass*", "/etc"),
            ("/etc/passwd", "/etc/passwd", "/etc/passwd"),
            ("/../../x[ab]/y", "/x[ab]/y", "/"),
        ] {
            assert_eq!(absolute(workspace, pattern), full);
            assert_eq!(literal_base(full), Path::new(base), "{pattern}");
        }
    }
}
