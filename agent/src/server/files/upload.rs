use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use agent::protocol::FileRefusal;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::path::refusal;
use crate::server::spool::random;

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
    /// Beside the target, so that the rename is atomic; `None` once in place.
    temporary: Option<PathBuf>,
    target: PathBuf,
    /// Of the file that is replaced.
    owner: Option<(u32, u32)>,
    size: u64,
}

impl Upload {
    pub fn begin(write: Write, full: &Path) -> Result<Self, FileRefusal> {
        let path = write.path.clone();
        Self::try_begin(write, full).map_err(|error| refusal(&path, &error))
    }

    fn try_begin(write: Write, full: &Path) -> io::Result<Self> {
        if write.path.ends_with('/') {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let target = follow(full)?;
        let owner = match fs::symlink_metadata(&target) {
            Ok(metadata) if metadata.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
            // Replacing a device or a socket by a file is not what a write does.
            Ok(metadata) if !metadata.is_file() => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
            }
            Ok(metadata) => Some((metadata.uid(), metadata.gid())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let (Some(parent), Some(_)) = (target.parent(), target.file_name()) else {
            return Err(io::ErrorKind::IsADirectory.into());
        };
        fs::create_dir_all(parent)?;
        let temporary = parent.join(format!(".stacyvm-upload-{:016x}", random()));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let upload = Self { write, file, temporary: Some(temporary), target, owner, size: 0 };
        upload.reserve()?;
        Ok(upload)
    }

    /// A disk that is too full says so before the bytes travel.
    fn reserve(&self) -> io::Result<()> {
        let Some(size) = self.write.size_hint.filter(|size| *size > 0) else {
            return Ok(());
        };
        match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, size) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(error.into()),
            // Not every file system can.
            Ok(()) | Err(_) => Ok(()),
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
        if let Some((uid, gid)) = self.owner {
            // Without the right to, the new file is the agent's: as good as a shell would do.
            let _ = std::os::unix::fs::fchown(&self.file, Some(uid), Some(gid));
        }
        self.file.set_permissions(Permissions::from_mode(self.write.mode & 0o7777))?;
        if self.write.sync {
            self.file.sync_all()?;
        }
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.target)?;
        }
        self.temporary = None;
        if let Some(parent) = self.target.parent().filter(|_| self.write.sync) {
            File::open(parent)?.sync_all()?;
        }
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // If this fails the directory itself is gone.
            let _ = fs::remove_file(temporary);
        }
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
