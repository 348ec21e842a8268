//! How long to wait before the next attempt.
//!
//! There is no loop that waits: attempts are events, so the pause is in the record and goes on over restarts. A crate that retries a call
//! has no place to begin in the middle.

use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// The pause after this many failed attempts: it doubles each time, from a second to an hour, and the later half of it is left
/// to chance (`dice` in 0..1), so that the webhooks of one dead receiver do not come back all at once. A receiver that says
/// when it wants to be asked again is not asked sooner, up to an hour.
pub fn pause(attempts: u32, dice: f64, retry_after: Option<Duration>) -> Duration {
    let doublings = attempts.saturating_sub(1).min(12);
    let full = (FIRST * 2u32.pow(doublings)).min(LONGEST);
    let pause = full.mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0));
    pause.max(retry_after.unwrap_or_default().min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_from_a_second_to_an_hour() {
        let seconds: Vec<u64> = [1, 2, 3, 4, 11, 12, 13, 14, 1000, u32::MAX]
            .map(|attempts| pause(attempts, 1.0, None).as_secs())
            .to_vec();
        assert_eq!(seconds, [1, 2, 4, 8, 1024, 2048, 3600, 3600, 3600, 3600]);
    }

    #[test]
    fn chance_takes_away_half_at_most() {
        for dice in [0.0, 0.3, 0.999, -5.0, 7.0] {
            let pause = pause(3, dice, None);
            assert!(pause >= Duration::from_secs(2) && pause <= Duration::from_secs(4), "{dice}: {pause:?}");
        }
    }

    #[test]
    fn what_the_receiver_asks_for_is_honoured_up_to_an_hour() {
        let asked = |seconds| pause(1, 1.0, Some(Duration::from_secs(seconds))).as_secs();
        assert_eq!([asked(0), asked(30), asked(3600), asked(86_400)], [1, 30, 3600, 3600]);
    }
}
