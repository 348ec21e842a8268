//! Starting a process without copying the agent: until the child has executed its program it borrows the agent's memory, and
//! the agent's thread stands still.
//!
//! `fork` copies the page tables of the agent, and each page that either side then writes to. That was a sixth of the time of a
//! short exec. `posix_spawn` borrows memory as well, but knows only some of what a child of ours does to itself.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use rustix::fs::Gid;
use rustix::process::{Pid, WaitOptions, waitpid};

use super::child::{Child, Step};

/// The child's stack. What it does there has a path of 4 KiB in it, and little else.
const STACK_BYTES: usize = 128 << 10;
/// The greatest number of a signal.
const LAST_SIGNAL: c_int = 64;

/// What the child finds in the agent's memory.
struct Launch<'a> {
    child: &'a mut Child,
    groups: &'a [Gid],
    streams: [RawFd; 3],
    handled: &'static [c_int],
    /// Why it came to nothing, as [`Step::failed`] puts it into a number.
    failure: Option<c_int>,
}

/// Starts the child with these as its stdin, stdout and stderr: its process id. Returns when it has executed its program, or
/// could not.
#[allow(unsafe_code)]
pub fn launch(mut child: Child, streams: [OwnedFd; 3]) -> io::Result<u32> {
    let groups: Vec<Gid> =
        child.user.iter().flat_map(|user| &user.groups).map(|gid| Gid::from_raw(*gid)).collect();
    // Out of the way of the numbers that they get.
    let streams = streams.map(|stream| match stream.as_raw_fd() {
        0..3 => rustix::io::fcntl_dupfd_cloexec(&stream, 3).map_err(io::Error::from),
        _ => Ok(stream),
    });
    let [stdin, stdout, stderr] = streams;
    let streams = [stdin?, stdout?, stderr?];
    let mut launch = Launch {
        child: &mut child,
        groups: &groups,
        handled: handled_signals(),
        streams: [streams[0].as_raw_fd(), streams[1].as_raw_fd(), streams[2].as_raw_fd()],
        failure: None,
    };
    let mut stack = Box::<[MaybeUninit<u128>]>::new_uninit_slice(STACK_BYTES / size_of::<u128>());
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let mask = block_signals();
    // SAFETY: the stack is the child's alone and ends where `top` is, which is aligned to 16 bytes. With CLONE_VFORK this thread
    // stands still until the child has executed a program or exited, so nobody else uses `launch` meanwhile, and the borrow
    // ends before this function goes on. No handler of a signal runs in the child: all are blocked until it has none.
    let pid = unsafe {
        libc::clone(run, top, libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD, (&raw mut launch).cast())
    };
    let error = io::Error::last_os_error();
    restore_signals(&mask);
    if pid < 0 {
        return Err(error);
    }
    if let Some(code) = launch.failure {
        if let Some(pid) = Pid::from_raw(pid) {
            // It has exited; whoever reaps may have been quicker.
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
        return Err(io::Error::from_raw_os_error(code));
    }
    u32::try_from(pid).map_err(io::Error::other)
}

/// The child. System calls only: no allocation, no locks, because the memory is the agent's.
#[allow(unsafe_code)]
extern "C" fn run(launch: *mut c_void) -> c_int {
    // SAFETY: it is the `Launch` that `clone` was given, and its owner stands still.
    let launch = unsafe { &mut *launch.cast::<Launch<'_>>() };
    let error = launch.become_it();
    launch.failure = Some(error.raw_os_error().unwrap_or(libc::EINVAL));
    // SAFETY: ends this process, and nothing of the agent: no destructors, no buffers.
    unsafe { libc::_exit(127) }
}

impl Launch<'_> {
    /// Comes back only when that failed.
    #[allow(unsafe_code)]
    fn become_it(&mut self) -> io::Error {
        forget_handlers(self.handled);
        for (number, stream) in (0..).zip(self.streams) {
            // SAFETY: both are numbers of descriptors; the table is the child's own copy.
            if unsafe { libc::dup2(stream, number) } < 0 {
                return io::Error::last_os_error();
            }
        }
        match self.child.enter(self.groups) {
            Ok(()) => Step::Program.failed(self.child.program.execute().to_raw()),
            Err(error) => error,
        }
    }
}

/// Blocks all signals of this thread. What was blocked before.
#[allow(unsafe_code)]
fn block_signals() -> libc::sigset_t {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: the first call initialises one set, the second one fills the other: with these arguments it cannot fail.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

#[allow(unsafe_code)]
fn restore_signals(mask: &libc::sigset_t) {
    // SAFETY: the set is initialised.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, std::ptr::null_mut()) };
}

/// The signals that the agent has handlers for. It has all of them before it starts the first process.
#[allow(unsafe_code)]
fn handled_signals() -> &'static [c_int] {
    static HANDLED: OnceLock<Vec<c_int>> = OnceLock::new();
    HANDLED.get_or_init(|| {
        let is_handled = |signal: &c_int| {
            let mut action = MaybeUninit::<libc::sigaction>::uninit();
            // SAFETY: the pointer is valid, and what it leads to is only looked at when it was filled in. Numbers that are no
            // signals, and the library's own, are refused.
            let action = unsafe {
                (libc::sigaction(*signal, std::ptr::null(), action.as_mut_ptr()) == 0)
                    .then(|| action.assume_init())
            };
            action.is_some_and(|action| !matches!(action.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN))
        };
        (1..=LAST_SIGNAL).filter(is_handled).collect()
    })
}

/// No handler of the agent may run in its memory in another process; and a program expects that writing to a broken pipe ends it.
#[allow(unsafe_code)]
fn forget_handlers(handled: &[c_int]) {
    for signal in handled.iter().copied().chain([libc::SIGPIPE]) {
        let mut action = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: the pointer is valid.
        if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
            continue;
        }
        // SAFETY: it was filled in.
        let mut action = unsafe { action.assume_init() };
        action.sa_sigaction = libc::SIG_DFL;
        action.sa_flags = 0;
        // SAFETY: the pointer is valid; the table of handlers is the child's own copy.
        unsafe { libc::sigaction(signal, &raw const action, std::ptr::null_mut()) };
    }
}
