//! The users and groups of boxes, which on the host are nobody's.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::thread::{Gid, Uid, UnshareFlags};

/// How many users, and how many groups, a box has: as many as distributions hand out to one user, and more than
/// images use.
pub(super) const COUNT: u32 = 65_536;

/// A user namespace whose ids stand for ids of the host, from these on.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) namespace: OwnedFd,
}

impl Ids {
    /// Makes the namespace. It lives as long as its descriptor, or a process in it. Needs root.
    pub(super) fn make(uid: u32, gid: u32) -> io::Result<Self> {
        // Waits in the namespace until the descriptor is had.
        let mut command = Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        enter_new(&mut command, uid, gid);
        let mut child = command.spawn()?;
        let namespace = map(child.id(), uid, gid);
        drop(child.stdin.take());
        child.wait()?;
        Ok(Self { namespace: namespace? })
    }
}

/// Its owner is the boxes' root: whoever that is may enter it, and has all rights in it.
#[allow(unsafe_code)]
fn enter_new(command: &mut Command, uid: u32, gid: u32) {
    let enter = move || {
        become_user(Uid::from_raw(uid), Gid::from_raw(gid))?;
        // SAFETY: this process has just been forked and has one thread; no descriptor table is unshared.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) }?;
        Ok(())
    };
    // SAFETY: system calls only: no allocation, no locks.
    unsafe { command.pre_exec(enter) };
}

fn map(process: u32, uid: u32, gid: u32) -> io::Result<OwnedFd> {
    for (file, first) in [("uid_map", uid), ("gid_map", gid)] {
        let mut map = File::options().write(true).open(format!("/proc/{process}/{file}"))?;
        map.write_all(format!("0 {first} {COUNT}\n").as_bytes())?;
    }
    Ok(File::open(format!("/proc/{process}/ns/user"))?.into())
}

/// For a child that has been forked.
pub(super) fn become_user(uid: Uid, gid: Gid) -> rustix::io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)
}
