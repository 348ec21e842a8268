use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time since boot, sleep included; no change of the wall clock moves it.
pub fn boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

pub fn since(earlier: Duration) -> Duration {
    boot().saturating_sub(earlier)
}
