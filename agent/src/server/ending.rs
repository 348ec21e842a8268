use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::watch::{Watched, watch};
use agent::protocol::KillCause;
use rustix::process::Signal;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_gettime,
    timerfd_settime,
};
use tokio::sync::Notify;

use super::{Agent, processes};

/// How long attached callers have to hear the end of their execs.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Why the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Shutdown,
    Deadline,
}

/// Where an end is asked for.
#[derive(Default)]
pub struct Control {
    requested: Cell<Option<(Ending, Duration)>>,
    changed: Notify,
}

impl Control {
    /// The first request counts.
    pub fn request(&self, ending: Ending, grace: Duration) {
        if self.requested.get().is_none() {
            self.requested.set(Some((ending, grace)));
            self.changed.notify_one();
        }
    }

    pub fn is_requested(&self) -> bool {
        self.requested.get().is_some()
    }

    async fn requested(&self) -> (Ending, Duration) {
        loop {
            if let Some(requested) = self.requested.get() {
                return requested;
            }
            self.changed.notified().await;
        }
    }
}

/// The sandbox's deadline on the boot clock.
pub struct Deadline {
    timer: Watched,
}

impl Deadline {
    pub fn new(remaining: Option<Duration>) -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let deadline = Self { timer: watch(timer)? };
        if let Some(remaining) = remaining {
            deadline.set(remaining)?;
        }
        Ok(deadline)
    }

    pub fn set(&self, remaining: Duration) -> io::Result<()> {
        // A timer of zero would be disarmed, not due.
        arm(self.timer.get_ref(), remaining.max(Duration::from_nanos(1)), Duration::ZERO)
    }

    pub fn remaining(&self) -> Option<Duration> {
        let value = timerfd_gettime(self.timer.get_ref()).ok()?.it_value;
        let remaining = Duration::new(
            u64::try_from(value.tv_sec).unwrap_or(0),
            u32::try_from(value.tv_nsec).unwrap_or(0),
        );
        (!remaining.is_zero()).then_some(remaining)
    }

    async fn passed(&self) {
        loop {
            let Ok(mut guard) = self.timer.readable().await else {
                return;
            };
            let read = guard.try_io(|timer| Ok(rustix::io::read(timer.get_ref(), &mut [0_u8; 8])?));
            if matches!(read, Ok(Ok(_))) {
                return;
            }
        }
    }
}

/// Has a timer go off after this long, and then again after each interval; zero: never.
pub fn arm(timer: &OwnedFd, after: Duration, interval: Duration) -> io::Result<()> {
    let time = |time: Duration| Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX).min(i64::from(u32::MAX)),
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    let spec = Itimerspec { it_interval: time(interval), it_value: time(after) };
    Ok(timerfd_settime(timer, TimerfdTimerFlags::empty(), &spec).map(|_| ())?)
}

/// Waits for the end and carries it out: when this returns nothing else of the sandbox lives.
pub async fn wait(agent: &Agent) -> Ending {
    let (ending, grace) = tokio::select! {
        requested = agent.ending.requested() => requested,
        () = agent.deadline.passed() => (Ending::Deadline, Duration::ZERO),
    };
    // No exec starts from here on.
    agent.ending.request(ending, grace);
    agent.execs.mark_killed(KillCause::Shutdown);
    if !grace.is_zero() {
        processes::signal_everything(Signal::TERM);
        let gone = async {
            while processes::any_left() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(grace, gone) => {}
            // A deadline inside the grace is still the deadline.
            () = agent.deadline.passed() => {}
        }
    }
    for _ in 0..100 {
        processes::signal_everything(Signal::KILL);
        tokio::time::sleep(Duration::from_millis(5)).await;
        if !processes::any_left() {
            break;
        }
    }
    let _ = tokio::time::timeout(LAST_WORDS, agent.execs.all_heard()).await;
    ending
}
