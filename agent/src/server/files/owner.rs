//! Whom files belong to that are made for a caller.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, mkdirat, openat};
use rustix::io::Errno;

use crate::server::Agent;
use crate::server::users::User;

/// The user that execs run as by default, where that one could have made it: so that they can use what was put there for
/// them. Everywhere else what is made is the agent's.
#[derive(Debug, Clone, Copy)]
pub struct Owner(Option<(Uid, Gid)>);

impl Owner {
    /// Looked up on another thread: the account file is the sandbox's.
    pub async fn of_new(agent: &Agent) -> Self {
        let Some(name) = agent.options.default_user.clone() else { return Self(None) };
        let user = tokio::task::spawn_blocking(move || User::find(&name)).await.ok().flatten();
        Self(user.map(|user| (Uid::from_raw(user.uid), Gid::from_raw(user.gid))))
    }

    /// Gives away what was just made in a directory. Without the right to it stays the agent's.
    pub fn give(self, made: impl AsFd, directory: impl AsFd) {
        let Some((uid, gid)) = self.0 else { return };
        let Ok(stat) = rustix::fs::fstat(directory) else { return };
        if stat.st_uid == uid.as_raw() || stat.st_mode & 0o002 != 0 {
            let _ = fchown(made, Some(uid), Some(gid));
        }
    }

    /// Makes a directory with all above it that are missing. Those that it makes are given away, and no others: they are
    /// gone through by their descriptors, because whoever may write above them can put links in their place.
    pub fn make_directories(self, path: &Path) -> io::Result<()> {
        if self.0.is_none() {
            return fs::create_dir_all(path);
        }
        let there = path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/"));
        let rest = path.strip_prefix(there).map_err(io::Error::other)?;
        let mut directory = OwnedFd::from(File::open(there)?);
        for component in rest.components() {
            directory = match component {
                Component::Normal(name) => self.make_in(&directory, name)?,
                Component::ParentDir => open_in(&directory, OsStr::new(".."))?,
                Component::CurDir | Component::RootDir | Component::Prefix(_) => continue,
            };
        }
        Ok(())
    }

    fn make_in(self, directory: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
        match mkdirat(directory, name, Mode::from_raw_mode(0o777)) {
            Ok(()) => {
                let made = open_in(directory, name)?;
                self.give(&made, directory);
                Ok(made)
            }
            // Somebody else was quicker.
            Err(Errno::EXIST) => open_in(directory, name),
            Err(error) => Err(error.into()),
        }
    }
}

fn open_in(directory: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(directory, name, flags, Mode::empty())?)
}
