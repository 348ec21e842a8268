//! `stacyvm cp`

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::arguments::Location;
use super::cp_tree::{download_tree, upload_tree};
use super::error::VerbError;
use super::signals::Signals;
use super::transfer::{Source, Target, download, upload};
use client::{Client, FileInfo};

/// Copy a file into or out of a sandbox; with -r, a folder and all that is in it.
#[derive(Debug, Clone, clap::Args)]
pub struct CpArgs {
    /// Folders with all that is in them. A folder that is there already takes the copy under its own name, as with cp.
    #[arg(long, short)]
    pub recursive: bool,
    /// ID:PATH in a sandbox, a local path, or - for stdin.
    #[arg(value_name = "SRC")]
    pub source: OsString,
    /// ID:PATH in a sandbox, a local path, or - for stdout. In a folder, the file keeps its name.
    #[arg(value_name = "DST")]
    pub target: OsString,
}

pub async fn cp(api: &Client, args: CpArgs) -> Result<ExitCode, VerbError> {
    let source = Location::parse(&args.source).map_err(VerbError::Usage)?;
    let target = Location::parse(&args.target).map_err(VerbError::Usage)?;
    let mut signals = Signals::catch().map_err(VerbError::local("cannot catch signals"))?;
    tokio::select! {
        biased;
        // What was copied so far goes: on our side when the copy is dropped, on the other when the connection breaks.
        caught = signals.next() => Err(VerbError::Interrupted(caught.exit_code())),
        copied = copy(api, args.recursive, source, target) => copied.map(|()| ExitCode::SUCCESS),
    }
}

async fn copy(api: &Client, recursive: bool, source: Location, target: Location) -> Result<(), VerbError> {
    match (source, target) {
        (Location::Remote { sandbox, path }, Location::Local(local))
            if recursive && api.stat_file(&sandbox, &path).await?.is_dir =>
        {
            // `/` and `.` have no name of their own: their contents are copied.
            let named = local.is_dir() && file_name(Path::new(&path)).is_ok();
            let local = if named { local.join(file_name(Path::new(&path))?) } else { local };
            download_tree(api, &sandbox, &path, local).await
        }
        (Location::Local(local), Location::Remote { sandbox, path }) if recursive && local.is_dir() => {
            // What `.` and `..` are called is in the path of what they stand for.
            let whole =
                local.canonicalize().map_err(VerbError::local(format!("cannot read {}", local.display())))?;
            let path = match folder_that_is_there(api, &sandbox, &path).await? {
                Some(folder) => format!("{folder}/{}", file_name(&whole)?),
                None => path,
            };
            upload_tree(api, &sandbox, &whole, &path).await
        }
        (Location::Remote { sandbox, path }, Location::Local(local)) => {
            let file = regular(api, &sandbox, &path).await?;
            let local = into_folder(local, &path)?;
            download(api, &sandbox, &path, &file, Target::File(local)).await
        }
        (Location::Remote { sandbox, path }, Location::Stdio) => {
            let file = regular(api, &sandbox, &path).await?;
            download(api, &sandbox, &path, &file, Target::Stdout).await
        }
        (Location::Local(local), Location::Remote { sandbox, path }) => {
            let source = Source::open(&local).await?;
            let name = file_name(&local)?;
            let path = match folder(api, &sandbox, &path).await? {
                Some(folder) => format!("{folder}/{name}"),
                None => path,
            };
            upload(api, &sandbox, &path, source).await
        }
        (Location::Stdio, Location::Remote { sandbox, path }) => {
            if folder(api, &sandbox, &path).await?.is_some() {
                return Err(VerbError::Usage(format!("{path} is a folder: name the file in it")));
            }
            upload(api, &sandbox, &path, Source::stdin()?).await
        }
        (Location::Remote { .. }, Location::Remote { .. }) => {
            Err(VerbError::Usage("both sides are in a sandbox: copy by way of a local file, or -".to_owned()))
        }
        (Location::Local(_) | Location::Stdio, Location::Local(_) | Location::Stdio) => {
            Err(VerbError::Usage("neither side is in a sandbox: write ID:/path for one of them".to_owned()))
        }
    }
}

async fn regular(api: &Client, sandbox: &str, path: &str) -> Result<FileInfo, VerbError> {
    let file = api.stat_file(sandbox, path).await?;
    if file.is_dir {
        return Err(VerbError::Failed(format!("{path} is a folder: copy it with -r")));
    }
    Ok(file)
}

/// The folder that a path names, without the slash at its end; `None` if it names a file, or nothing yet.
async fn folder(api: &Client, sandbox: &str, path: &str) -> Result<Option<String>, VerbError> {
    let bare = path.trim_end_matches('/');
    if bare.len() < path.len() {
        return Ok(Some(bare.to_owned()));
    }
    match api.stat_file(sandbox, path).await {
        Ok(file) => Ok(file.is_dir.then(|| bare.to_owned())),
        // No such file, or no such sandbox: the upload will tell which.
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The same, where a slash at its end makes no folder: one that is not there is made by the copy.
async fn folder_that_is_there(api: &Client, sandbox: &str, path: &str) -> Result<Option<String>, VerbError> {
    let bare = path.trim_end_matches('/');
    match api.stat_file(sandbox, if bare.is_empty() { "/" } else { bare }).await {
        Ok(file) => Ok(file.is_dir.then(|| bare.to_owned())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn into_folder(local: PathBuf, remote: &str) -> Result<PathBuf, VerbError> {
    let names_folder = local.as_os_str().as_encoded_bytes().ends_with(b"/");
    if !names_folder && !local.is_dir() {
        return Ok(local);
    }
    Ok(local.join(file_name(Path::new(remote))?))
}

pub fn file_name(path: &Path) -> Result<&str, VerbError> {
    let name =
        path.file_name().ok_or_else(|| VerbError::Usage(format!("{} names no file", path.display())))?;
    name.to_str()
        .ok_or_else(|| VerbError::Usage(format!("{}: a name in a sandbox must be UTF-8", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_a_folder_a_file_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let inside = into_folder(folder.path().to_owned(), "/etc/passwd").unwrap();
        assert_eq!(inside, folder.path().join("passwd"));
        let missing = folder.path().join("other");
        assert_eq!(into_folder(missing.clone(), "/etc/passwd").unwrap(), missing);
        assert!(into_folder(folder.path().to_owned(), "/").is_err());
        assert!(into_folder(folder.path().to_owned(), "/etc/..").is_err());
    }
}
