use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use agent::protocol::{Entry, FileErrorKind, FileRefusal, MAX_PATH};

use crate::server::Agent;

/// The full path of what a caller named.
pub fn resolve(agent: &Agent, path: &str) -> Result<PathBuf, FileRefusal> {
    check(path)?;
    Ok(agent.options.workspace.join(path))
}

pub fn check(path: &str) -> Result<(), FileRefusal> {
    let invalid = |message: &str| {
        // Shown short: it goes into logs.
        let path = path.chars().take(100).collect();
        Err(FileRefusal { kind: FileErrorKind::InvalidPath, path, message: message.to_owned() })
    };
    if path.is_empty() {
        invalid("the path is empty")
    } else if path.len() > MAX_PATH {
        invalid("the path is longer than 4096 bytes")
    } else if path.contains('\0') {
        invalid("the path has a NUL byte")
    } else {
        Ok(())
    }
}

/// For `map_err`.
pub fn named(path: &str) -> impl Fn(io::Error) -> FileRefusal + '_ {
    |error| refusal(path, &error)
}

pub fn refusal(path: &str, error: &io::Error) -> FileRefusal {
    let message = match error.raw_os_error() {
        // Without "(os error 2)".
        Some(number) => rustix::io::Errno::from_raw_os_error(number).to_string(),
        None => error.to_string(),
    };
    let message = message.split(" (os error").next().unwrap_or_default().to_owned();
    FileRefusal { kind: kind(error), path: path.to_owned(), message }
}

/// The other kinds of `io::ErrorKind` are not ours to enumerate.
#[allow(clippy::wildcard_enum_match_arm)]
fn kind(error: &io::Error) -> FileErrorKind {
    use io::ErrorKind;
    match error.raw_os_error() {
        Some(libc::ELOOP | libc::ENAMETOOLONG | libc::EINVAL) => return FileErrorKind::InvalidPath,
        Some(libc::EBUSY | libc::ETXTBSY) => return FileErrorKind::Busy,
        Some(libc::ENXIO | libc::ENODEV | libc::ENOTTY | libc::ESPIPE | libc::EOPNOTSUPP | libc::ENOSYS) => {
            return FileErrorKind::Unsupported;
        }
        Some(_) | None => {}
    }
    match error.kind() {
        ErrorKind::NotFound => FileErrorKind::NotFound,
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => FileErrorKind::PermissionDenied,
        ErrorKind::AlreadyExists => FileErrorKind::AlreadyExists,
        ErrorKind::IsADirectory => FileErrorKind::IsADirectory,
        ErrorKind::InvalidInput => FileErrorKind::InvalidPath,
        ErrorKind::NotADirectory => FileErrorKind::NotADirectory,
        ErrorKind::DirectoryNotEmpty => FileErrorKind::DirectoryNotEmpty,
        ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::FileTooLarge
        | ErrorKind::OutOfMemory
        | ErrorKind::WriteZero => FileErrorKind::NoSpace,
        // What the kernel says of a file of the sandbox is not the agent's failure.
        _ if error.raw_os_error().is_some() => FileErrorKind::Failed,
        _ => FileErrorKind::Other,
    }
}

/// Names that are not UTF-8 are shown with replacement characters; they can be listed, not addressed.
pub fn entry_of(path: &Path, metadata: &Metadata, is_symlink: bool) -> Entry {
    let name = path.file_name().unwrap_or(path.as_os_str());
    Entry {
        name: name.to_string_lossy().into_owned(),
        path: path.to_string_lossy().into_owned(),
        size: metadata.size(),
        mode: metadata.mode() & 0o7777,
        is_dir: metadata.is_dir(),
        is_symlink,
        modified_unix_seconds: metadata.mtime(),
        modified_nanos: u32::try_from(metadata.mtime_nsec()).unwrap_or(0),
    }
}
