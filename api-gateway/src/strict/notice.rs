use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many lines are written in one period: a client that is wrong is wrong with every request.
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(60);

struct Window {
    since: Instant,
    written: u32,
    withheld: u64,
}

static WINDOW: LazyLock<Mutex<Window>> =
    LazyLock::new(|| Mutex::new(Window { since: Instant::now(), written: 0, withheld: 0 }));

/// Says what was left out.
pub(super) fn left_out(route: &str, what: &str) {
    let mut window = WINDOW.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(withheld) = window.admit(Instant::now()) else { return };
    drop(window);
    tracing::warn!(http.route = route, unknown = what, withheld, "a part of a request was ignored");
}

impl Window {
    /// Whether a line may be written, and how many were not since the last one.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if now.saturating_duration_since(self.since) >= PERIOD {
            (self.since, self.written) = (now, 0);
        }
        if self.written >= LINES {
            self.withheld += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_not_written() {
        let start = Instant::now();
        let mut window = Window { since: start, written: 0, withheld: 0 };
        let written = (0..1000).filter(|_| window.admit(start).is_some()).count();
        assert_eq!(written, 10);
        assert_eq!(window.admit(start + PERIOD), Some(990));
        assert_eq!(window.admit(start + PERIOD), Some(0));
    }
}
