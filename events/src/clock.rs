//! Time comes in through a [`Clock`], so that folds stay pure and tests can hold it still.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// The current instant, in microseconds: the precision that every store keeps.
    fn now(&self) -> DateTime<Utc>;

    /// How long the machine has run, sleep included. Nobody can set it: lengths of time are measured on it.
    fn since_boot(&self) -> Duration;

    /// By how much what the machine calls the time is ahead of [`now`](Self::now) (behind, when negative), while it is not
    /// believed. What cannot be taken back waits until it is clear what time it is.
    fn doubt(&self) -> Option<TimeDelta> {
        None
    }
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(6)
    }

    fn since_boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(
            u64::try_from(time.tv_sec).unwrap_or_default(),
            u32::try_from(time.tv_nsec).unwrap_or_default(),
        )
    }
}

/// A clock that moves only when it is told to.
#[derive(Debug)]
pub struct ManualClock(Mutex<(DateTime<Utc>, Duration)>);

impl ManualClock {
    /// A clock that stands at `now`, on a machine that has run for a day.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self(Mutex::new((now, Duration::from_secs(24 * 3600))))
    }

    /// Lets time pass. Backwards only the time of day goes: nothing can turn back how long the machine has run.
    pub fn advance(&self, by: TimeDelta) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += by;
        state.1 += by.to_std().unwrap_or_default();
    }

    /// Sets the time of day, forwards or backwards, in no time.
    pub fn jump(&self, by: TimeDelta) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn since_boot(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}
