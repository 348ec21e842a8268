use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use super::watch::{Watched, watch};

use super::{Agent, ending::Ending, execs::Reaped};

/// Grace of a shutdown that comes as a signal.
const SIGNAL_GRACE: Duration = Duration::from_secs(2);

/// Blocks the signals that are read from a descriptor instead, in this and all later threads.
#[allow(unsafe_code)]
pub fn block() -> io::Result<libc::sigset_t> {
    unignore();
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set before anything reads it; the other calls get valid
    // pointers.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in [libc::SIGCHLD, libc::SIGTERM, libc::SIGINT] {
            libc::sigaddset(set.as_mut_ptr(), signal);
        }
        let set = set.assume_init();
        if libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(set)
    }
}

/// What our starter ignored, children must not inherit as ignored. SIGPIPE stays: the standard library has
/// it ignored here and puts it right in children.
#[allow(unsafe_code)]
fn unignore() {
    for signal in (1..=64).filter(|signal| *signal != libc::SIGPIPE) {
        // The kernel's own structure: handler, flags, restorer, mask. glibc's call refuses 32 and 33.
        let (mut current, default) = ([0_u64; 4], [0_u64; 4]);
        let none = std::ptr::null_mut::<u64>();
        // SAFETY: both arrays are as large as the kernel's structure with a mask of 8 bytes.
        unsafe {
            let asked = libc::syscall(libc::SYS_rt_sigaction, signal, none, current.as_mut_ptr(), 8);
            if asked == 0 && current[0] == libc::SIG_IGN as u64 {
                libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8);
            }
        }
    }
}

pub struct Signals {
    descriptor: Watched,
}

impl Signals {
    #[allow(unsafe_code)]
    pub fn new(set: &libc::sigset_t) -> io::Result<Self> {
        // SAFETY: the set is initialised; a descriptor that is not negative is new and ours.
        let descriptor = unsafe {
            let raw = libc::signalfd(-1, set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if raw < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(raw)
        };
        Ok(Self { descriptor: watch(descriptor)? })
    }

    /// Reaps every child, ours or inherited, and obeys SIGTERM and SIGINT.
    pub async fn serve(self, agent: Rc<Agent>) {
        let is_init = rustix::process::getpid().is_init();
        loop {
            let Ok(mut guard) = self.descriptor.readable().await else {
                return;
            };
            while let Ok(Ok((signal, sender))) = guard.try_io(|fd| read_signal(fd.get_ref())) {
                // As PID 1, a signal from inside is the workload's doing (`kill -- -1`).
                if signal != libc::SIGCHLD && (!is_init || sender == 0) {
                    agent.ending.request(Ending::Shutdown, SIGNAL_GRACE);
                }
            }
            while let Some(reaped) = reap() {
                agent.execs.reaped(&reaped, &agent.oom);
            }
        }
    }
}

/// The signal and its sender (0: outside our pid namespace, or the kernel).
#[allow(unsafe_code)]
fn read_signal(descriptor: &OwnedFd) -> io::Result<(i32, u32)> {
    let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
    let size = size_of::<libc::signalfd_siginfo>();
    // SAFETY: the buffer is as large as stated, and is read only if the kernel filled all of it.
    unsafe {
        let count = libc::read(descriptor.as_raw_fd(), info.as_mut_ptr().cast(), size);
        if usize::try_from(count) != Ok(size) {
            return Err(io::Error::last_os_error());
        }
        let info = info.assume_init();
        Ok((i32::try_from(info.ssi_signo).unwrap_or(0), info.ssi_pid))
    }
}

#[allow(unsafe_code)]
fn reap() -> Option<Reaped> {
    let mut status = 0;
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both pointers are valid for writes; all zeroes is a valid rusage.
    let (pid, usage) =
        unsafe { (libc::wait4(-1, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()), usage.assume_init()) };
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let seconds = |time: libc::timeval| {
        Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), 0)
            + Duration::from_micros(u64::try_from(time.tv_usec).unwrap_or(0))
    };
    Some(Reaped {
        pid,
        status,
        cpu_time: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        max_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    })
}
