//! Whether this process has run all the time: one that was frozen finds messages that waited for it, and does not see their age.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// How often it is felt.
const BEAT: Duration = Duration::from_millis(100);
/// Past this, a beat was missed.
const MISSED: Duration = Duration::from_millis(400);
/// A message this old, by the clock of its sender, may have waited for long. Clocks of hosts differ: then it is asked once too
/// often, which costs a round trip.
const OLD: chrono::TimeDelta = chrono::TimeDelta::milliseconds(400);

/// Feels whether this process runs.
#[derive(Debug)]
pub struct Pulse {
    last: Mutex<Instant>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self { last: Mutex::new(Instant::now()) }
    }
}

impl Pulse {
    /// Beats for ever.
    pub async fn beat(&self) {
        loop {
            tokio::time::sleep(BEAT).await;
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    /// Whether what was sent then, and is read now, may have been waiting for longer than anybody waits for it.
    pub fn is_in_doubt(&self, sent_at: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        let age = now.signed_duration_since(sent_at);
        let silent_for = self.last.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        silent_for > MISSED || age > OLD || age < -OLD
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn what_may_have_waited_is_in_doubt() {
        let (pulse, now) = (Pulse::default(), DateTime::<Utc>::UNIX_EPOCH);
        let ms = TimeDelta::milliseconds;
        assert!(!pulse.is_in_doubt(now, now));
        assert!(!pulse.is_in_doubt(now, now + ms(400)));
        assert!(pulse.is_in_doubt(now, now + ms(401)));
        assert!(pulse.is_in_doubt(now + ms(401), now), "the sender's clock is ahead");
        *pulse.last.lock().unwrap() -= Duration::from_secs(1);
        assert!(pulse.is_in_doubt(now, now), "this process did not run for a while");
    }
}
