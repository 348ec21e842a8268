//! What a child does to itself before it executes its program.

use std::ffi::CString;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Gid, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

use super::mark::Mark;
use super::program::Program;
use super::users::User;

/// The agent's own capability, to take others away with. Nothing that it runs has it.
const OWN: CapabilitySet = CapabilitySet::SETPCAP;

/// Which step of a child failed. It tells by adding the step to the number of the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Directory,
    User,
    Terminal,
    Program,
    Other,
}

/// Above all error numbers.
const STEP: i32 = 1 << 16;

impl Step {
    /// The step and the number of an error that came from a child, or from the fork.
    pub fn of(error: &io::Error) -> Option<(Self, i32)> {
        let code = error.raw_os_error()?;
        let step = match code / STEP {
            1 => Self::Directory,
            2 => Self::User,
            3 => Self::Terminal,
            4 => Self::Program,
            _ => Self::Other,
        };
        Some((step, code % STEP))
    }

    /// The step and the number in one.
    pub fn failed(self, number: i32) -> io::Error {
        let step = match self {
            Self::Other => 0,
            Self::Directory => 1,
            Self::User => 2,
            Self::Terminal => 3,
            Self::Program => 4,
        };
        io::Error::from_raw_os_error(step * STEP + number)
    }

    fn error(self, error: Errno) -> io::Error {
        self.failed(error.raw_os_error())
    }
}

/// All of it is made before there is a child: that makes system calls only.
pub struct Child {
    pub directory: CString,
    /// Whom to become; nobody else than the agent when absent.
    pub user: Option<User>,
    pub terminal: bool,
    pub descriptors: Rlimit,
    pub mark: Mark,
    pub program: Program,
}

impl Child {
    /// Becomes it, but for its program.
    pub fn enter(&self, groups: &[Gid]) -> io::Result<()> {
        unblock_signals();
        rustix::process::setsid()?;
        if self.terminal {
            rustix::process::ioctl_tiocsctty(stream(0)).map_err(|error| Step::Terminal.error(error))?;
        }
        rustix::process::setrlimit(Resource::Nofile, self.descriptors)?;
        self.mark.wear();
        raise_oom_score();
        // Refused where the agent has no capabilities: then there is nothing to take away.
        let _ = rustix::thread::remove_capability_from_bounding_set(OWN);
        if let Some(user) = &self.user {
            self.give_streams(user);
            become_user(user, groups).map_err(|error| Step::User.error(error))?;
        }
        drop_capabilities().map_err(|error| Step::User.error(error))?;
        rustix::process::chdir(self.directory.as_c_str()).map_err(|error| Step::Directory.error(error))
    }

    /// So that the user can open its own streams again, by `/dev/stdout` or the terminal's name.
    fn give_streams(&self, user: &User) {
        for number in 0..3 {
            let stream = stream(number);
            // Not `/dev/null`, which is everybody's.
            let own = self.terminal
                || rustix::fs::fstat(stream)
                    .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo);
            if own {
                // Without the right to it works as before.
                let _ = rustix::fs::fchown(
                    stream,
                    Some(Uid::from_raw(user.uid)),
                    (!self.terminal).then(|| Gid::from_raw(user.gid)),
                );
            }
        }
    }
}

fn become_user(user: &User, groups: &[Gid]) -> Result<(), Errno> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    match set_thread_groups(groups) {
        // Without the right to change, one can still stay who one is.
        Err(Errno::PERM) if is_own(uid, gid) => return Ok(()),
        outcome => outcome?,
    }
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn is_own(uid: Uid, gid: Gid) -> bool {
    rustix::process::geteuid() == uid && rustix::process::getegid() == gid
}

/// Root keeps what the sandbox has, without the agent's own; the kernel has taken all from others. Nothing is handed
/// down beyond that.
fn drop_capabilities() -> Result<(), Errno> {
    // Kernels before 4.3 have no such set.
    let _ = rustix::thread::clear_ambient_capability_set();
    let mut sets = rustix::thread::capabilities(None)?;
    sets.effective.remove(OWN);
    sets.permitted.remove(OWN);
    sets.inheritable = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, sets)
}

#[allow(unsafe_code)]
fn stream(number: i32) -> BorrowedFd<'static> {
    // SAFETY: descriptors 0 to 2 were just set up and stay open until exec.
    unsafe { BorrowedFd::borrow_raw(number) }
}

#[allow(unsafe_code)]
fn unblock_signals() {
    let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set; both calls are async-signal-safe.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut());
    }
}

/// Whatever the agent's own: when memory runs out the workload goes first. Best effort: `/proc` may be missing or not ours.
fn raise_oom_score() {
    use rustix::fs::{Mode, OFlags, open};
    if let Ok(file) = open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
        let _ = rustix::io::write(&file, super::oom_score::WORKLOAD);
    }
}
