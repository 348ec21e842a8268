//! The directory where work happens that names none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::users::User;

/// Why there is no default directory to work in.
#[derive(Debug, thiserror::Error)]
#[error("the working directory {} {what}", path.display())]
pub struct NoDirectory {
    path: PathBuf,
    what: String,
}

/// The default working directory, made again if the work has removed it: an exec must not end up in another.
pub fn default(path: &Path, user: Option<&str>) -> Result<PathBuf, NoDirectory> {
    let failed = |what: String| NoDirectory { path: path.to_owned(), what };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(path.to_owned()),
        Ok(_) => Err(failed("is not a directory".to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed(format!("cannot be entered: {error}")))
        }
        Err(_) if fs::symlink_metadata(path).is_ok() => {
            Err(failed("is a link that leads nowhere".to_owned()))
        }
        Err(_) => match make(path, user) {
            Ok(()) => Ok(path.to_owned()),
            Err(error) => Err(failed(format!("is gone and cannot be made again: {error}"))),
        },
    }
}

/// Makes a directory for the default user to work in.
pub fn make(path: &Path, user: Option<&str>) -> io::Result<()> {
    fs::create_dir_all(path)?;
    match user.and_then(User::find) {
        Some(user) => std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid)),
        None => Ok(()),
    }
}

/// Hands a directory that was there before over to the default user, if it is of no use to anybody yet: root's, and
/// empty.
pub fn hand_over(path: &Path, user: Option<&str>) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let Some(user) = user.and_then(User::find) else { return Ok(()) };
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() && metadata.uid() == 0 && fs::read_dir(path)?.next().is_none() {
        std::os::unix::fs::lchown(path, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}
