use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::Path;

use super::remove::remove_tree;
use crate::server::spool::random;

/// Moves what cannot be renamed: a copy beside the target, put in place, and only then the source removed.
pub fn move_by_copy(source: &Path, target: &Path) -> io::Result<()> {
    if target.starts_with(source) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let parent = target.parent().ok_or(io::ErrorKind::IsADirectory)?;
    let temporary = parent.join(format!(".stacyvm-move-{:016x}", random()));
    let placed = copy(source, &temporary).and_then(|()| fs::rename(&temporary, target));
    if placed.is_err() {
        // The first error is the one to tell.
        let _ = remove(&temporary);
        return placed;
    }
    remove(source)
}

fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(source)?;
    if metadata.is_symlink() {
        symlink(fs::read_link(source)?, target)?;
    } else if metadata.is_dir() {
        fs::create_dir(target)?;
        for entry in fs::read_dir(source)? {
            let entry = entry?;
            copy(&entry.path(), &target.join(entry.file_name()))?;
        }
    } else if metadata.is_file() {
        fs::copy(source, target)?;
    } else {
        let message = "neither a file, a directory nor a symlink";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    // Before the mode: a change of owner clears the set-id bits. Not everybody may give files away.
    let _ = lchown(target, Some(metadata.uid()), Some(metadata.gid()));
    if !metadata.is_symlink() {
        let times =
            fs::FileTimes::new().set_modified(metadata.modified()?).set_accessed(metadata.accessed()?);
        fs::File::open(target)?.set_times(times)?;
        fs::set_permissions(target, metadata.permissions())?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { remove_tree(path) } else { fs::remove_file(path) }
}
