//! How long, and how often, something is tried again.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);
/// A connection that ends as soon as it is there would be made again and again, as fast as a machine can.
const SHORT_LIVED: Duration = Duration::from_millis(500);

/// Pauses that grow from 100 ms to 2 s, up to an end.
///
/// ```no_run
/// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
/// let mut patience = client::Patience::new(std::time::Duration::from_secs(10));
/// let sandbox = loop {
///     match client.sandbox("sb-1").await {
///         Err(error) if error.is_passing() && patience.again().await => {}
///         outcome => break outcome?,
///     }
/// };
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Patience {
    limit: Duration,
    ends_at: Instant,
    pauses: ExponentialBackoff,
}

impl Patience {
    /// Patience for so long.
    pub fn new(limit: Duration) -> Self {
        // The end is a time and not a number of pauses: a try that takes long counts too.
        let pauses =
            ExponentialBuilder::new().with_min_delay(FIRST).with_max_delay(LONGEST).without_max_times();
        Self { limit, ends_at: Instant::now() + limit, pauses: pauses.build() }
    }

    /// Waits before another try. False: no more.
    pub async fn again(&mut self) -> bool {
        if Instant::now() >= self.ends_at {
            return false;
        }
        tokio::time::sleep(self.pauses.next().unwrap_or(LONGEST)).await;
        true
    }

    /// All of it is there again.
    pub fn renew(&mut self) {
        *self = Self::new(self.limit);
    }
}

/// When a stream that broke is opened again: at once if it was of use, and else with pauses that grow, over however many
/// connections.
#[derive(Debug)]
pub(crate) struct Reopening {
    patience: Patience,
    opened_at: Instant,
    is_of_use: bool,
}

impl Reopening {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { patience: Patience::new(limit), opened_at: Instant::now(), is_of_use: false }
    }

    /// Something came over it.
    pub(crate) const fn progressed(&mut self) {
        self.is_of_use = true;
    }

    /// It is there.
    pub(crate) fn opened(&mut self) {
        (self.opened_at, self.is_of_use) = (Instant::now(), false);
    }

    /// It broke. Waits before it is opened again, where that is wise. False: no more.
    pub(crate) async fn broke(&mut self) -> bool {
        if self.is_of_use || self.opened_at.elapsed() > SHORT_LIVED {
            self.patience.renew();
            return true;
        }
        self.patience.again().await
    }

    /// It could not be opened. Waits before another try. False: no more.
    pub(crate) async fn failed(&mut self) -> bool {
        self.patience.again().await
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

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_is_of_no_use_is_not_opened_for_ever() {
        let mut reopening = Reopening::new(Duration::from_secs(10));
        let mut opened = 0;
        loop {
            reopening.opened();
            opened += 1;
            if !reopening.broke().await {
                break;
            }
        }
        assert!((6..12).contains(&opened), "{opened}");

        let mut reopening = Reopening::new(Duration::from_secs(10));
        let started = Instant::now();
        for _ in 0..100 {
            reopening.opened();
            reopening.progressed();
            assert!(reopening.broke().await);
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "one that is of use is opened at once");
        tokio::time::sleep(Duration::from_secs(60)).await;
        reopening.opened();
        tokio::time::sleep(SHORT_LIVED * 2).await;
        assert!(reopening.broke().await, "and one that lived for a while");
    }
}
