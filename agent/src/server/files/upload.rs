use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use agent::protocol::FileRefusal;
use rustix::fs::{AtFlags, FallocateFlags, Mode, OFlags, fallocate, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::not_regular;
use super::owner::Owner;
use super::path::refusal;
use crate::server::spool::random;

/// Where the bytes of a file wait that has to be written in place, in a directory that takes no new ones.
const STAGE: &str = "/tmp";

pub struct Write {
    pub path: String,
    pub mode: u32,
    pub size_hint: Option<u64>,
    pub sync: bool,
}

/// A file that is being received. Dropped before it is committed, it leaves nothing.
pub struct Upload {
    write: Write,
    file: File,
    /// The directory of the target. By its descriptor, so that no name beside the target's has to fit a path.
    parent: OwnedFd,
    name: OsString,
    /// Beside the target, so that the rename is atomic; `None` once in place, and where the file has no name.
    temporary: Option<String>,
    /// Of the file that is replaced.
    owner: Option<(u32, u32)>,
    size: u64,
}

impl Upload {
    pub fn begin(write: Write, full: &Path, new: Owner) -> Result<Self, FileRefusal> {
        let path = write.path.clone();
        Self::try_begin(write, full, new).map_err(|error| refusal(&path, &error))
    }

    fn try_begin(write: Write, full: &Path, new: Owner) -> io::Result<Self> {
        if write.path.ends_with('/') {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let target = follow(full)?;
        let owner = match fs::symlink_metadata(&target) {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            // Replacing a device or a socket by a file is not what a write does.
            Ok(metadata) if !metadata.is_file() => return Err(not_regular()),
            Ok(metadata) => Some((metadata.uid(), metadata.gid())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        new.make_directories(parent)?;
        let flags = libc::O_DIRECTORY | libc::O_PATH;
        let parent = OwnedFd::from(File::options().read(true).custom_flags(flags).open(parent)?);
        let temporary = format!(".stacyvm-upload-{:016x}", random());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (file, temporary) = match openat(&parent, temporary.as_str(), flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => (File::from(file), Some(temporary)),
            // The directory takes no new file, but the file itself may take new bytes.
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS) if owner.is_some() => {
                overwritten(&parent, name)?;
                (stage()?, None)
            }
            Err(error) => return Err(error.into()),
        };
        if owner.is_none() && temporary.is_some() {
            new.give(&file, &parent);
        }
        let upload = Self { write, file, parent, name: name.to_owned(), temporary, owner, size: 0 };
        upload.reserve()?;
        Ok(upload)
    }

    /// A disk that is too full says so before the bytes travel.
    fn reserve(&self) -> io::Result<()> {
        match self.write.size_hint {
            Some(size) => make_room(&self.file, size),
            None => Ok(()),
        }
    }

    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileRefusal> {
        self.file.write_all(bytes).map_err(|error| refusal(&self.write.path, &error))?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    pub fn commit(mut self) -> Result<u64, FileRefusal> {
        match self.try_commit() {
            Ok(()) => Ok(self.size),
            Err(error) => Err(refusal(&self.write.path, &error)),
        }
    }

    fn try_commit(&mut self) -> io::Result<()> {
        if self.write.size_hint.is_some_and(|hint| hint > self.size) {
            // Gives back what was reserved and not used.
            self.file.set_len(self.size)?;
        }
        let Some(temporary) = &self.temporary else {
            return self.overwrite();
        };
        if let Some((uid, gid)) = self.owner {
            // Without the right to, the new file is the agent's: as good as a shell would do.
            let _ = std::os::unix::fs::fchown(&self.file, Some(uid), Some(gid));
        }
        self.file.set_permissions(Permissions::from_mode(self.write.mode & 0o7777))?;
        if self.write.sync {
            self.file.sync_all()?;
        }
        match renameat(&self.parent, temporary.as_str(), &self.parent, &self.name) {
            Ok(()) => self.temporary = None,
            // A mount point, a file of somebody else in a directory like /tmp, one that may not be removed.
            Err(Errno::BUSY | Errno::XDEV | Errno::PERM | Errno::ACCESS) if self.owner.is_some() => {
                return self.overwrite();
            }
            Err(error) => return Err(error.into()),
        }
        if self.write.sync {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            File::from(openat(&self.parent, ".", flags, Mode::empty())?).sync_all()?;
        }
        Ok(())
    }

    /// Puts the bytes into the file that is there. A reader can see it half written, which is why this comes last.
    fn overwrite(&mut self) -> io::Result<()> {
        let mut target = overwritten(&self.parent, &self.name)?;
        make_room(&target, self.size)?;
        self.file.rewind()?;
        io::copy(&mut self.file, &mut target)?;
        target.set_len(self.size)?;
        // Who may write a file need not be who may change its mode.
        let _ = target.set_permissions(Permissions::from_mode(self.write.mode & 0o7777));
        if self.write.sync { target.sync_all() } else { Ok(()) }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // If this fails the directory itself is gone.
            let _ = unlinkat(&self.parent, temporary.as_str(), AtFlags::empty());
        }
    }
}

/// The regular file of this name, open for writing.
fn overwritten(parent: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(parent, name, flags, Mode::empty())?);
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// A file without a name.
fn stage() -> io::Result<File> {
    File::options().read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(STAGE)
}

fn make_room(file: &File, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, size) {
        Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(error.into()),
        // Not every file system can.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Where a write through symlinks lands; the last file need not exist.
fn follow(path: &Path) -> io::Result<PathBuf> {
    /// As the kernel has it.
    const MOST_LINKS: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("/")).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}
