//! `stacyvm cp -r`: folders, file by file.
//!
//! What a sandbox says its files are called is not trusted: only plain names are joined to a local folder, no link is ever
//! made here, and depth and number are bounded.

use std::path::{Path, PathBuf};

use super::cp::file_name;
use super::error::VerbError;
use super::transfer::{Source, Target, download, upload};
use crate::output::{self, plain};
use client::{Client, ClientError, ExecRequest};

/// The deepest folder, and the most entries that are copied in one go.
const MAX_DEPTH: usize = 256;
const MAX_ENTRIES: usize = 1_000_000;

/// What was left out, told one by one while the rest goes on.
#[derive(Default)]
struct Outcome {
    entries: usize,
    left_out: usize,
}

impl Outcome {
    fn count(&mut self, depth: usize) -> Result<(), VerbError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES || depth > MAX_DEPTH {
            return Err(VerbError::Failed(format!(
                "too much for one copy: at most {MAX_ENTRIES} entries, {MAX_DEPTH} folders deep"
            )));
        }
        Ok(())
    }

    fn leave_out(&mut self, path: &str, why: &str) {
        self.left_out += 1;
        output::note(&format!("{path} is left out: {why}"));
    }

    /// One that fails does not keep the rest.
    fn heed(&mut self, path: &str, copied: Result<(), VerbError>) -> Result<(), VerbError> {
        match copied {
            Err(
                error @ (VerbError::Server(ClientError::Refused(_))
                | VerbError::Local { .. }
                | VerbError::Failed(_)),
            ) if !error.is_passing() => {
                self.leave_out(path, &error.to_string());
                Ok(())
            }
            copied => copied,
        }
    }

    fn end(self) -> Result<(), VerbError> {
        if self.left_out > 0 { Err(VerbError::Told) } else { Ok(()) }
    }
}

/// Copies a local folder into a sandbox: to `path` itself, which is made.
pub async fn upload_tree(api: &Client, sandbox: &str, local: &Path, path: &str) -> Result<(), VerbError> {
    let mut outcome = Outcome::default();
    let mut empty = Vec::new();
    let mut waiting = vec![(local.to_owned(), path.trim_end_matches('/').to_owned(), 0)];
    while let Some((folder, remote, depth)) = waiting.pop() {
        let cannot = || VerbError::local(format!("cannot read {}", folder.display()));
        let mut entries = tokio::fs::read_dir(&folder).await.map_err(cannot())?;
        let mut is_empty = true;
        while let Some(entry) = entries.next_entry().await.map_err(cannot())? {
            is_empty = false;
            outcome.count(depth)?;
            let local = entry.path();
            let shown = local.display().to_string();
            let Ok(name) = file_name(&local) else {
                outcome.leave_out(&shown, "a name in a sandbox must be UTF-8");
                continue;
            };
            let target = format!("{remote}/{name}");
            let kind = entry.file_type().await.map_err(cannot())?;
            // A link to a file is the file; one to a folder may lead round in a circle.
            let leads_to_file = kind.is_symlink() && local.is_file();
            if kind.is_dir() {
                waiting.push((local, target, depth + 1));
            } else if kind.is_file() || leads_to_file {
                let copied = match Source::open(&local).await {
                    Ok(source) => upload(api, sandbox, &target, source).await,
                    Err(error) => Err(error),
                };
                outcome.heed(&shown, copied)?;
            } else {
                outcome.leave_out(&shown, "neither a file nor a folder");
            }
        }
        if is_empty {
            empty.push(remote);
        }
    }
    make_folders(api, sandbox, empty, &mut outcome).await?;
    outcome.end()
}

/// Files bring their folders with them; those without a file are made by a command.
async fn make_folders(
    api: &Client,
    sandbox: &str,
    folders: Vec<String>,
    outcome: &mut Outcome,
) -> Result<(), VerbError> {
    for some in folders.chunks(500) {
        let words = ["mkdir", "-p", "--"].into_iter().chain(some.iter().map(String::as_str));
        let made = api.run(sandbox, &ExecRequest::argv(words)).await?;
        if made.exit_code != 0 {
            for folder in some {
                outcome.leave_out(folder, "an empty folder, and the sandbox has no mkdir that makes it");
            }
        }
    }
    Ok(())
}

/// Copies a folder of a sandbox to a local one, which is made.
pub async fn download_tree(api: &Client, sandbox: &str, path: &str, local: PathBuf) -> Result<(), VerbError> {
    let mut outcome = Outcome::default();
    let mut waiting = vec![(path.trim_end_matches('/').to_owned(), local, 0)];
    while let Some((remote, folder, depth)) = waiting.pop() {
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(VerbError::local(format!("cannot make {}", folder.display())))?;
        let shown = if remote.is_empty() { "/" } else { &remote };
        for file in api.list_files(sandbox, shown).await? {
            let name = &file.name;
            outcome.count(depth)?;
            let source = format!("{remote}/{name}");
            if !is_plain(name) {
                outcome.leave_out(&plain(&source), "not a name for a file here");
            } else if file.is_dir {
                waiting.push((source, folder.join(name), depth + 1));
            } else {
                let target = Target::File(folder.join(name));
                let copied = download(api, sandbox, &source, &file, target).await;
                outcome.heed(&plain(&source), copied)?;
            }
        }
    }
    outcome.end()
}

/// Whether joining this name to a folder leads into that folder.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_of_a_folder_are_refused() {
        for name in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\0b"] {
            assert!(!is_plain(name), "{name:?}");
        }
        for name in ["a", ".hidden", "...", "a b", "ä\n"] {
            assert!(is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn a_copy_has_an_end() {
        let mut outcome = Outcome::default();
        assert!(outcome.count(MAX_DEPTH).is_ok());
        assert!(outcome.count(MAX_DEPTH + 1).is_err());
        outcome.entries = MAX_ENTRIES;
        assert!(outcome.count(0).is_err());
    }
}
