//! The directory that a box shares with the executor: a small file system of its own, so that what the box writes there takes
//! nothing from the disk of the record.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use agent::client::{Connector, Peer, UnixConnect};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::inside;

/// The most that it holds, in bytes: output that waits to be recorded, and whatever else the box puts there. It counts as
/// memory of the box.
const MOST_BYTES: u64 = 16 << 20;
/// How many files.
const MOST_FILES: u32 = 256;
/// As many mounts over one another as a crash could have left.
const MOST_MOUNTS: usize = 16;

/// How large the directory of a box with this memory limit is, in bytes.
pub(super) fn size(memory_mib: u32) -> u64 {
    match memory_mib {
        0 => MOST_BYTES,
        // The kernel's smallest sensible one is a few pages.
        limited => (u64::from(limited) << 20 >> 3).clamp(64 << 10, MOST_BYTES),
    }
}

/// The part of it that the box sees. What lies beside it the box cannot reach.
const SHARED: &str = "shared";
/// The agent's socket in the box's part, and where it is moved to once the agent answers.
const SOCKET: &str = inside::SOCKET_NAME;
/// Holds the pid of whoever listened on the socket when nothing but the agent ran in the box.
const LISTENER: &str = "listener";

/// What of the directory is shown in the box.
pub(super) fn shared(path: &Path) -> PathBuf {
    path.join(SHARED)
}

/// Where the agent is reached: where nothing in the box can remove its socket or put another one, once it is there. Of a box
/// that was made before there was such a place, it is the same name.
pub(super) fn socket(path: &Path) -> PathBuf {
    let own = path.join(SOCKET);
    if own.symlink_metadata().is_ok() || !shared(path).is_dir() { own } else { shared(path).join(SOCKET) }
}

/// The way to the agent, and to nobody else where that could be told.
pub(super) fn agent(path: &Path) -> Connector {
    UnixConnect::to(socket(path), listener(path)).into()
}

/// Moves the socket of an agent that has just answered out of the box's reach: a socket is what it is under any name. Nothing
/// but the agent has run in the box until then, so it is the agent's. Nothing happens when it was moved before.
pub(super) async fn keep_socket(path: &Path) -> io::Result<()> {
    let (own, within) = (path.join(SOCKET), shared(path).join(SOCKET));
    if own.symlink_metadata().is_ok() {
        return Ok(());
    }
    let moved = async {
        if let Some(pid) = agent::client::listener(&within).await? {
            std::fs::write(path.join(LISTENER), pid.to_string())?;
        }
        std::fs::rename(&within, &own)
    };
    match moved.await {
        // Somebody else has just done it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && own.symlink_metadata().is_ok() => Ok(()),
        moved => moved,
    }
}

/// Forgets the socket of a box that is over, before another one is made in the same place.
pub(super) fn forget_socket(path: &Path) -> io::Result<()> {
    for name in [SOCKET, LISTENER] {
        match std::fs::remove_file(path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Who listens on the socket, where that could be told.
fn listener(path: &Path) -> Peer {
    let read = std::fs::read_to_string(path.join(LISTENER)).ok();
    read.and_then(|pid| pid.parse().ok()).map_or(Peer::Anybody, Peer::Process)
}

/// Whether the directory has a file system of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Apart {
    Yes,
    /// This process may not mount. The directory lies on the disk like any other.
    No,
}

/// Makes the directory, and the box's part of it with this mode, if it is not there yet. The caller has checked that whoever makes the box sees the
/// mounts of this process, or asks for none.
pub(super) fn make(path: &Path, mode: u32, memory_mib: u32, mount: bool) -> io::Result<Apart> {
    match std::fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !shared(path).exists() && !path.join(SOCKET).exists() {
                // Whoever made it was interrupted.
                make_shared(path, mode)?;
            }
            return Ok(if is_apart(path)? { Apart::Yes } else { Apart::No });
        }
        Err(error) => return Err(error),
    }
    let apart = if mount { mount_at(path, size(memory_mib)) } else { Ok(Apart::No) };
    let apart = apart.and_then(|apart| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
        make_shared(path, mode)?;
        Ok(apart)
    });
    if apart.is_err() {
        // As good as empty still.
        let _ = std::fs::remove_dir(shared(path));
        let _ = release(path);
        let _ = std::fs::remove_dir(path);
    }
    apart
}

fn make_shared(path: &Path, mode: u32) -> io::Result<()> {
    std::fs::create_dir(shared(path))?;
    std::fs::set_permissions(shared(path), std::fs::Permissions::from_mode(mode))
}

fn mount_at(path: &Path, bytes: u64) -> io::Result<Apart> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let options = CString::new(format!("mode=700,size={bytes},nr_inodes={MOST_FILES}"))?;
    let target = CString::new(path.as_os_str().as_bytes())?;
    match rustix::mount::mount(c"stacyvm-run", target.as_c_str(), c"tmpfs", flags, Some(options.as_c_str())) {
        Ok(()) => Ok(Apart::Yes),
        Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS | Errno::NODEV) => Ok(Apart::No),
        Err(error) => Err(error.into()),
    }
}

/// Whether this process may mount at all.
pub(super) fn may_mount() -> bool {
    use rustix::thread::{CapabilitySet, capabilities};
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// What an operator is told where boxes share the disk.
pub(super) const NOT_APART: &str = "what sandboxes write into /.stacyvm/run lies on this node's disk, and nothing limits it: \
     that takes the right to mount (CAP_SYS_ADMIN), and an engine that sees the mounts of this process";

fn is_apart(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let above = path.parent().unwrap_or(path);
    Ok(std::fs::symlink_metadata(path)?.dev() != std::fs::symlink_metadata(above)?.dev())
}

/// Takes the file system away, with all that is in it; the directory stays. Whoever still has it open keeps it.
pub(super) fn release(path: &Path) -> io::Result<()> {
    for _ in 0..MOST_MOUNTS {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // None, or none that this process could have made.
            Err(Errno::INVAL | Errno::NOENT | Errno::PERM | Errno::NOTDIR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "it is mounted over and over"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_small_and_below_the_memory_limit() {
        for (memory_mib, bytes) in
            [(0, 16 << 20), (1, 128 << 10), (64, 8 << 20), (128, 16 << 20), (u32::MAX, 16 << 20)]
        {
            assert_eq!(size(memory_mib), bytes, "{memory_mib}");
        }
    }

    #[test]
    fn what_is_made_holds_so_much_and_goes_with_all_that_is_in_it() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run");
        assert_eq!(make(&path, 0o700, 8, true).unwrap(), Apart::Yes);
        assert_eq!(make(&path, 0o700, 8, true).unwrap(), Apart::Yes);
        let full = std::fs::write(path.join("large"), vec![7; 2 << 20]).unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        std::fs::remove_file(path.join("large")).unwrap();
        let full = (0..1000).find_map(|number| std::fs::write(path.join(number.to_string()), "").err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::StorageFull);
        release(&path).unwrap();
        release(&path).unwrap();
        assert_eq!(make(&path, 0o700, 8, true).unwrap(), Apart::No);
        std::fs::remove_dir_all(&path).unwrap();
        assert_eq!(make(&path, 0o700, 8, false).unwrap(), Apart::No);
        std::fs::remove_dir_all(&path).unwrap();
        release(&path).unwrap();
    }

    #[tokio::test]
    async fn a_socket_is_moved_once_and_leads_to_whoever_listened() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run");
        make(&path, 0o700, 8, false).unwrap();
        let within = shared(&path).join(SOCKET);
        let _agent = std::os::unix::net::UnixListener::bind(&within).unwrap();
        assert_eq!((socket(&path), listener(&path)), (within.clone(), Peer::Anybody));
        keep_socket(&path).await.unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!((socket(&path), listener(&path)), (path.join(SOCKET), Peer::Process(own)));
        assert!(std::os::unix::net::UnixStream::connect(socket(&path)).is_ok() && !within.exists());
        // Whatever is put there later is nobody's.
        let _other = std::os::unix::net::UnixListener::bind(&within).unwrap();
        keep_socket(&path).await.unwrap();
        assert_eq!(socket(&path), path.join(SOCKET));
        forget_socket(&path).unwrap();
        assert_eq!((socket(&path), listener(&path)), (within.clone(), Peer::Anybody));
        // A box of before.
        let old = place.path().join("old");
        std::fs::create_dir(&old).unwrap();
        assert_eq!((socket(&old), listener(&old)), (old.join(SOCKET), Peer::Anybody));
    }
}
