//! How much one box may ask.

use std::time::{Duration, Instant};

/// The same as the rules of its network say, which hold before: these are for what does not come by way of them.
const A_SECOND: u32 = 50;
const AT_ONCE: u32 = 200;

/// A share that fills up again.
#[derive(Debug)]
pub(super) struct Share {
    left: u32,
    filled: Instant,
}

impl Share {
    pub(super) fn full(now: Instant) -> Self {
        Self { left: AT_ONCE, filled: now }
    }

    /// Whether there is something left of it; then that is less now.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        const EACH: Duration = Duration::from_nanos(1_000_000_000 / A_SECOND as u64);
        let passed = now.saturating_duration_since(self.filled);
        let more = u32::try_from(passed.as_nanos() / EACH.as_nanos()).unwrap_or(u32::MAX);
        if more >= AT_ONCE - self.left {
            (self.left, self.filled) = (AT_ONCE, now);
        } else {
            self.left += more;
            self.filled += EACH * more;
        }
        let some = self.left > 0;
        self.left = self.left.saturating_sub(1);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_so_many_a_second() {
        let began = Instant::now();
        let mut share = Share::full(began);
        let granted = |share: &mut Share, at: Duration| (0..1_000).filter(|_| share.take(began + at)).count();
        assert_eq!(granted(&mut share, Duration::ZERO), 200);
        assert_eq!(granted(&mut share, Duration::from_millis(19)), 0);
        assert_eq!(granted(&mut share, Duration::from_secs(1)), 50);
        assert_eq!(granted(&mut share, Duration::from_millis(1_030)), 1);
        assert_eq!(granted(&mut share, Duration::from_millis(1_040)), 1);
        assert_eq!(granted(&mut share, Duration::from_secs(3_600)), 200);
    }
}
