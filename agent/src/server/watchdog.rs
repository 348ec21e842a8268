//! A thread that nothing in the sandbox can hold up: it ends the sandbox when its time is up and the agent has not, and
//! frees the agent from a child that was stopped before it became a program.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, getpid, kill_process};
use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};

use super::ending::arm;
use super::processes;

/// How much later than the agent it is: the agent lets execs tell their end.
const LATER: Duration = Duration::from_secs(1);
/// A child becomes a program, or fails to, within microseconds.
const LONGEST_START: Duration = Duration::from_secs(2);
/// How long a child that was stopped has once it was told to go on.
const AGAIN: Duration = Duration::from_millis(250);
/// What it does needs little.
const STACK_BYTES: usize = 128 * 1024;
/// What the agent ends with at its deadline.
const DEADLINE_CODE: i32 = 3;

/// The agent's side of it.
pub struct Watchdog {
    timers: Arc<Timers>,
}

struct Timers {
    /// Goes off when the sandbox must be over.
    deadline: OwnedFd,
    /// Goes off when a start takes too long.
    start: OwnedFd,
}

impl Watchdog {
    /// Begins to watch. Made before anything else runs: later there may be no thread to be had.
    pub fn start(deadline: Option<Duration>) -> io::Result<Self> {
        let timer =
            || timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK);
        let timers = Arc::new(Timers { deadline: timer()?, start: timer()? });
        let watchdog = Self { timers: Arc::clone(&timers) };
        if let Some(remaining) = deadline {
            watchdog.set(remaining)?;
        }
        let thread = std::thread::Builder::new().name("watchdog".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || timers.watch())?;
        Ok(watchdog)
    }

    /// The agent ends the sandbox after this long.
    pub fn set(&self, remaining: Duration) -> io::Result<()> {
        arm(&self.timers.deadline, remaining.saturating_add(LATER), Duration::ZERO)
    }

    /// Starts a child. Whoever starts one waits until it has become a program; if something in the sandbox stops it on the
    /// way, it is told to go on, and killed if it does not.
    pub fn over<T>(&self, start: impl FnOnce() -> T) -> T {
        // Without it the start is as good as any.
        let _ = arm(&self.timers.start, LONGEST_START, AGAIN);
        let started = start();
        let _ = arm(&self.timers.start, Duration::ZERO, Duration::ZERO);
        started
    }
}

impl Timers {
    fn watch(&self) {
        let mut told_to_go_on = false;
        loop {
            let mut waiting =
                [PollFd::new(&self.deadline, PollFlags::IN), PollFd::new(&self.start, PollFlags::IN)];
            if poll(&mut waiting, None).is_err() {
                std::thread::sleep(AGAIN);
            }
            if went_off(&self.deadline) {
                end();
            }
            if went_off(&self.start) {
                let signal = if told_to_go_on { Signal::KILL } else { Signal::CONT };
                told_to_go_on = free(signal) && !told_to_go_on;
            }
        }
    }
}

/// Once for each time that it does.
fn went_off(timer: &OwnedFd) -> bool {
    rustix::io::read(timer, &mut [0_u8; 8]).is_ok()
}

/// Nothing of the sandbox outlives its PID 1. Where that is another, what the agent started is ended first.
#[allow(unsafe_code)]
fn end() -> ! {
    for _ in 0..20 {
        processes::signal_everything(Signal::KILL);
        if getpid().is_init() || !processes::any_left() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: it does not return, and runs nothing of this process.
    unsafe { libc::_exit(DEADLINE_CODE) }
}

/// Signals children of ours that are stopped and are no programs yet. Whether there were any.
fn free(signal: Signal) -> bool {
    let (me, own) = (getpid().as_raw_nonzero().get(), name_of("self"));
    let mut any = false;
    for pid in processes::pids() {
        let Some((name, state, parent)) = name_of(&pid.to_string()) else { continue };
        let is_ours = parent == me && own.as_ref().is_some_and(|(own, ..)| *own == name);
        if is_ours
            && matches!(state, 'T' | 't')
            && let Some(pid) = Pid::from_raw(pid)
        {
            any = true;
            let _ = kill_process(pid, signal);
        }
    }
    any
}

/// The name, state and parent of a process. A child has the name of the thread that forked it until it is a program.
fn name_of(process: &str) -> Option<(Vec<u8>, char, i32)> {
    let stat = fs::read(format!("/proc/{process}/stat")).ok()?;
    let (begin, end) =
        (stat.iter().position(|byte| *byte == b'(')? + 1, stat.iter().rposition(|byte| *byte == b')')?);
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    Some((stat.get(begin..end)?.to_vec(), fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
