//! How long, and how often, something is tried again.

use std::time::Duration;

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);

/// Pauses that grow, up to an end.
#[derive(Debug)]
pub struct Patience {
    ends_at: Instant,
    pause: Duration,
}

impl Patience {
    /// Patience for so long.
    pub fn new(limit: Duration) -> Self {
        Self { ends_at: Instant::now() + limit, pause: FIRST }
    }

    /// Waits before another try. False: no more.
    pub async fn again(&mut self) -> bool {
        if Instant::now() >= self.ends_at {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let mut patience = Patience::new(Duration::from_secs(10));
        let started = Instant::now();
        let mut tries = 0;
        while patience.again().await {
            tries += 1;
        }
        assert!((6..12).contains(&tries), "{tries}");
        assert!(started.elapsed() < Duration::from_secs(13));
    }
}
