use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};

use super::open_regular;
use super::remove::remove_tree;
use crate::server::spool::random;

/// How many files one move copies at most: their names wait in memory.
const MOST_COPIED: usize = 1_000_000;

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

/// What is to be done yet, the next last: whoever made the tree chose its depth, so this does not recurse.
enum Step {
    Copy(PathBuf, PathBuf),
    /// A directory gets its owner, times and mode when all is in it.
    Finish(PathBuf, Metadata),
}

fn copy(source: &Path, target: &Path) -> io::Result<()> {
    let mut steps = vec![Step::Copy(source.to_owned(), target.to_owned())];
    let mut seen = 0;
    while let Some(step) = steps.pop() {
        let (source, target) = match step {
            Step::Copy(source, target) => (source, target),
            Step::Finish(target, metadata) => {
                dress(&target, &metadata)?;
                continue;
            }
        };
        let metadata = fs::symlink_metadata(&source)?;
        if metadata.is_dir() {
            fs::create_dir(&target)?;
            let entries = fs::read_dir(&source)?;
            steps.push(Step::Finish(target.clone(), metadata));
            for entry in entries {
                seen += 1;
                if seen > MOST_COPIED {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than a million files"));
                }
                let entry = entry?;
                steps.push(Step::Copy(entry.path(), target.join(entry.file_name())));
            }
            continue;
        }
        if metadata.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if metadata.is_file() {
            // What it was when it was looked at: whoever appends to it meanwhile does not make this endless.
            let (from, metadata) = open_regular(&source)?;
            let mut to = File::options().write(true).create_new(true).open(&target)?;
            io::copy(&mut from.take(metadata.len()), &mut to)?;
        } else {
            let message = "neither a file, a directory nor a symlink";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        dress(&target, &metadata)?;
    }
    Ok(())
}

fn dress(target: &Path, metadata: &Metadata) -> io::Result<()> {
    // Before the mode: a change of owner clears the set-id bits. Not everybody may give files away.
    let _ = lchown(target, Some(metadata.uid()), Some(metadata.gid()));
    if !metadata.is_symlink() {
        let times =
            fs::FileTimes::new().set_modified(metadata.modified()?).set_accessed(metadata.accessed()?);
        File::open(target)?.set_times(times)?;
        fs::set_permissions(target, metadata.permissions())?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { remove_tree(path) } else { fs::remove_file(path) }
}
