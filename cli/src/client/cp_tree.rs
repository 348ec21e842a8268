//! `stacyvm cp -r`: folders, file by file.
//!
//! What a sandbox says its files are called is not trusted: only plain names are joined to a local folder, no link is ever
//! made here, and depth and number are bounded.

use std::path::{Path, PathBuf};

use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::api::Api;
use super::cp::{RemoteFile, file_name};
use super::error::ClientError;
use super::transfer::{Source, Target, download, upload};
use crate::output::{self, plain};

/// The deepest folder, and the most entries that are copied in one go.
const MAX_DEPTH: usize = 256;
const MAX_ENTRIES: usize = 1_000_000;

#[derive(Deserialize)]
struct Entry {
    name: String,
    #[serde(flatten)]
    file: RemoteFile,
}

/// What was left out, told one by one while the rest goes on.
#[derive(Default)]
struct Outcome {
    entries: usize,
    left_out: usize,
}

impl Outcome {
    fn count(&mut self, depth: usize) -> Result<(), ClientError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES || depth > MAX_DEPTH {
            return Err(ClientError::Failed(format!(
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
    fn heed(&mut self, path: &str, copied: Result<(), ClientError>) -> Result<(), ClientError> {
        match copied {
            Err(
                error @ (ClientError::Refused { .. } | ClientError::Local { .. } | ClientError::Failed(_)),
            ) if !error.is_passing() => {
                self.leave_out(path, &error.to_string());
                Ok(())
            }
            copied => copied,
        }
    }

    fn end(self) -> Result<(), ClientError> {
        if self.left_out > 0 { Err(ClientError::Told) } else { Ok(()) }
    }
}

/// Copies a local folder into a sandbox: to `path` itself, which is made.
pub async fn upload_tree(api: &Api, sandbox: &str, local: &Path, path: &str) -> Result<(), ClientError> {
    let mut outcome = Outcome::default();
    let mut empty = Vec::new();
    let mut waiting = vec![(local.to_owned(), path.trim_end_matches('/').to_owned(), 0)];
    while let Some((folder, remote, depth)) = waiting.pop() {
        let cannot = || ClientError::local(format!("cannot read {}", folder.display()));
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
    api: &Api,
    sandbox: &str,
    folders: Vec<String>,
    outcome: &mut Outcome,
) -> Result<(), ClientError> {
    for some in folders.chunks(500) {
        let args: Vec<&str> = ["-p", "--"].into_iter().chain(some.iter().map(String::as_str)).collect();
        let request = api
            .request(Method::POST, api.url(&["sandboxes", sandbox, "exec"]))
            .json(&json!({"command": "mkdir", "args": args, "mode": "argv"}));
        let made: serde_json::Value = api.fetch(request).await?;
        if made.get("exit_code").and_then(serde_json::Value::as_i64) != Some(0) {
            for folder in some {
                outcome.leave_out(folder, "an empty folder, and the sandbox has no mkdir that makes it");
            }
        }
    }
    Ok(())
}

/// Copies a folder of a sandbox to a local one, which is made.
pub async fn download_tree(api: &Api, sandbox: &str, path: &str, local: PathBuf) -> Result<(), ClientError> {
    let mut outcome = Outcome::default();
    let mut waiting = vec![(path.trim_end_matches('/').to_owned(), local, 0)];
    while let Some((remote, folder, depth)) = waiting.pop() {
        tokio::fs::create_dir_all(&folder)
            .await
            .map_err(ClientError::local(format!("cannot make {}", folder.display())))?;
        let shown = if remote.is_empty() { "/" } else { &remote };
        let url = api.url(&["sandboxes", sandbox, "files", "list"]);
        let entries: Vec<Entry> = api.fetch(api.request(Method::GET, url).query(&[("path", shown)])).await?;
        for Entry { name, file } in entries {
            outcome.count(depth)?;
            let source = format!("{remote}/{name}");
            if !is_plain(&name) {
                outcome.leave_out(&plain(&source), "not a name for a file here");
            } else if file.is_dir {
                waiting.push((source, folder.join(&name), depth + 1));
            } else {
                let target = Target::File(folder.join(&name));
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
