//! The users and groups of boxes, which on the host are nobody's.
//!
//! Boxes have ranges of their own where the kernel can show an image's files as another range's; otherwise all have
//! the one that images are unpacked as.

use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use events::SandboxId;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::thread::{Gid, Uid, UnshareFlags};

/// How many users, and how many groups, a box has: as many as distributions hand out to one user, and more than
/// images use.
pub(super) const COUNT: u32 = 65_536;
/// How many ranges are looked at for one that is free.
const ATTEMPTS: u64 = 4096;

/// A user namespace whose ids stand for ids of the host, from these on.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) namespace: OwnedFd,
}

impl Ids {
    /// Makes the namespace of root and those that follow, who are these on the host. It lives as long as its
    /// descriptor, or a process in it. Needs root.
    pub(super) fn make(uid: u32, gid: u32) -> io::Result<Self> {
        Self::of((uid, gid), (0, 0), (uid, gid))
    }

    /// Makes the namespace that shows files of one range of the host as those of another.
    pub(super) fn between(stored: (u32, u32), shown: (u32, u32)) -> io::Result<Self> {
        Self::of(shown, stored, shown)
    }

    fn of(owner: (u32, u32), inner: (u32, u32), outer: (u32, u32)) -> io::Result<Self> {
        // Waits in the namespace until the descriptor is had.
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        enter_new(&mut command, owner);
        let mut child = command.spawn()?;
        let namespace = map(child.id(), inner, outer);
        drop(child.stdin.take());
        child.wait()?;
        Ok(Self { namespace: namespace? })
    }
}

/// Its owner is the boxes' root: whoever that is may enter it, and has all rights in it.
#[allow(unsafe_code)]
fn enter_new(command: &mut Command, (uid, gid): (u32, u32)) {
    let enter = move || {
        become_user(Uid::from_raw(uid), Gid::from_raw(gid))?;
        // SAFETY: this process has just been forked and has one thread; no descriptor table is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }?;
        Ok(())
    };
    // SAFETY: system calls only: no allocation, no locks.
    unsafe { command.pre_exec(enter) };
}

fn map(process: u32, inner: (u32, u32), outer: (u32, u32)) -> io::Result<OwnedFd> {
    for (file, inside, outside) in [("uid_map", inner.0, outer.0), ("gid_map", inner.1, outer.1)] {
        let mut map = File::options().write(true).open(format!("/proc/{process}/{file}"))?;
        map.write_all(format!("{inside} {outside} {COUNT}\n").as_bytes())?;
    }
    Ok(File::open(format!("/proc/{process}/ns/user"))?.into())
}

/// For a child that has been forked.
pub(super) fn become_user(uid: Uid, gid: Gid) -> rustix::io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}

/// Finds a range for a box that no other box of this data directory has: its first user and group. Nothing when there
/// is none. `directory` holds a link for each range that was given out, to its box; it is free when `boxes` has no such
/// box any more.
pub(super) fn own_range(
    directory: &Path,
    boxes: &Path,
    first: (u32, u32),
    id: SandboxId,
) -> io::Result<Option<(u32, u32)>> {
    std::fs::create_dir_all(directory)?;
    let lock = rustix::fs::open(directory, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    let found = free_range(directory, boxes, first, id);
    // Closing is not enough while a child that was just forked still has a copy.
    let _ = rustix::fs::flock(&lock, FlockOperation::Unlock);
    found
}

fn free_range(
    directory: &Path,
    boxes: &Path,
    first: (u32, u32),
    id: SandboxId,
) -> io::Result<Option<(u32, u32)>> {
    // The first range is that of the images; the greatest id is nobody's.
    let ranges = u64::from((u32::MAX - 1 - first.0.max(first.1)) / COUNT).saturating_sub(1);
    if ranges == 0 {
        return Ok(None);
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    let start = hasher.finish() % ranges;
    for attempt in 0..ranges.min(ATTEMPTS) {
        let number = 1 + (start + attempt) % ranges;
        let link = directory.join(number.to_string());
        match std::fs::read_link(&link) {
            Ok(owner) if owner.as_os_str() == id.to_string().as_str() => {}
            Ok(owner) if boxes.join(&owner).exists() => continue,
            Ok(_) => std::fs::remove_file(&link)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if std::fs::symlink_metadata(&link).is_err() {
            std::os::unix::fs::symlink(id.to_string(), &link)?;
        }
        let offset = u32::try_from(number).map_err(io::Error::other)? * COUNT;
        return Ok(Some((first.0 + offset, first.1 + offset)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_boxes_have_the_same_range_while_both_are_there() {
        let place = tempfile::tempdir().unwrap();
        let (directory, boxes) = (place.path().join("ids"), place.path().join("boxes"));
        // Room for three.
        let first = (u32::MAX - 1 - 4 * COUNT, 1);
        let made = || {
            let id = SandboxId::new();
            std::fs::create_dir_all(boxes.join(id.to_string())).unwrap();
            (id, own_range(&directory, &boxes, first, id).unwrap())
        };
        let boxes_made: Vec<_> = (0..3).map(|_| made()).collect();
        let mut ranges: Vec<_> = boxes_made.iter().map(|(_, range)| range.unwrap()).collect();
        ranges.sort_unstable();
        assert_eq!(ranges, [1, 2, 3].map(|number| (first.0 + number * COUNT, 1 + number * COUNT)));
        assert_eq!(made().1, None);
        // The same box has the same again; that of one that is gone is free.
        let (gone, range) = boxes_made[1];
        assert_eq!(own_range(&directory, &boxes, first, gone).unwrap(), range);
        std::fs::remove_dir(boxes.join(gone.to_string())).unwrap();
        assert_eq!(made().1, range);
    }

    #[test]
    fn without_room_there_is_no_range_of_ones_own() {
        let place = tempfile::tempdir().unwrap();
        let first = (u32::MAX - 1 - COUNT, 0);
        assert_eq!(
            own_range(&place.path().join("ids"), place.path(), first, SandboxId::new()).unwrap(),
            None
        );
    }
}
