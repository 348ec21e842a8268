use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, unlinkat};
use rustix::io::Errno;

/// Removes a directory with all that is in it, however deep: two descriptors and no recursion, since whoever made it
/// chose its depth. Symlinks go, not what they lead to.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let mut here = open(CWD, path)?;
    // The way back: the name in its parent of each directory that is open, and who the parent is.
    let mut above: Vec<(CString, Identity)> = Vec::new();
    loop {
        match empty(&here)? {
            Some(name) => {
                let parent = identity(&here)?;
                here = match open(&here, &name) {
                    Ok(below) => {
                        above.push((name, parent));
                        below
                    }
                    // Gone, or another kind of file by now: the next look tells.
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(error) => return Err(error.into()),
                };
            }
            None => {
                let Some((name, parent)) = above.pop() else {
                    return Ok(unlinkat(CWD, path, AtFlags::REMOVEDIR)?);
                };
                here = open(&here, "..")?;
                if identity(&here)? != parent {
                    return Err(io::Error::new(io::ErrorKind::ResourceBusy, "moved while it was removed"));
                }
                match unlinkat(&here, &name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}

type Identity = (u64, u64);

fn identity(directory: &OwnedFd) -> io::Result<Identity> {
    let stat = fstat(directory)?;
    Ok((stat.st_dev, stat.st_ino))
}

fn open(at: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, name, flags, Mode::empty())
}

/// Removes what is no directory, and empty directories; the first directory that is not empty is the answer.
fn empty(directory: &OwnedFd) -> io::Result<Option<CString>> {
    for found in Dir::read_from(directory)? {
        let found = found?;
        let name = found.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // Where the type is not known to the file system the kernel's refusal tells it.
        let removed = if found.file_type() == FileType::Directory {
            Err(Errno::ISDIR)
        } else {
            unlinkat(directory, name, AtFlags::empty())
        };
        let removed = match removed {
            Err(Errno::ISDIR | Errno::PERM) => unlinkat(directory, name, AtFlags::REMOVEDIR),
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST) => return Ok(Some(name.to_owned())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
