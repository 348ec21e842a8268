//! How often viewers come to an exec: each coming is an event, and a client that flaps must not fill the log.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use events::ExecId;
use tokio::time::Instant;

/// How many comings of one viewer to one exec are told in a window. A client that flaps must not fill the log.
const MAX_TOLD: u32 = 20;
const WINDOW: Duration = Duration::from_secs(60);
/// How many pairs of viewer and exec are counted at a time. Past that nothing is told till the window of some is over.
const MAX_PAIRS: usize = 4096;

/// How often viewers came lately.
#[derive(Debug, Default)]
pub struct Comings(Mutex<HashMap<(ExecId, String), Lately>>);

#[derive(Debug)]
struct Lately {
    since: Instant,
    told: u32,
    untold: u64,
}

impl Comings {
    /// How many came untold before this one; `None` when this one is not to be told either.
    pub fn count(&self, exec: ExecId, viewer: String) -> Option<u64> {
        let mut pairs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pairs.len() >= MAX_PAIRS {
            pairs.retain(|_, lately| lately.since.elapsed() < WINDOW);
        }
        let key = (exec, viewer);
        if pairs.len() >= MAX_PAIRS && !pairs.contains_key(&key) {
            return None;
        }
        let fresh = || Lately { since: Instant::now(), told: 0, untold: 0 };
        let lately = pairs.entry(key).or_insert_with(fresh);
        if lately.since.elapsed() >= WINDOW {
            *lately = Lately { untold: lately.untold, ..fresh() };
        }
        if lately.told >= MAX_TOLD {
            lately.untold += 1;
            return None;
        }
        lately.told += 1;
        Some(std::mem::take(&mut lately.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_viewer_that_flaps_is_told_a_bounded_number_of_times_and_counted() {
        let comings = Comings::default();
        let exec = ExecId::from_bytes([1; 16]);
        let mut told = 0;
        for _ in 0..1000 {
            told += u32::from(comings.count(exec, "client:".to_owned()).is_some());
        }
        assert_eq!(told, MAX_TOLD);
        assert_eq!(comings.count(exec, "viewer:vl-1".to_owned()), Some(0), "another one is another one");
        tokio::time::sleep(WINDOW).await;
        assert_eq!(comings.count(exec, "client:".to_owned()), Some(1000 - u64::from(MAX_TOLD)));
        assert_eq!(comings.count(exec, "client:".to_owned()), Some(0));
    }

    #[tokio::test(start_paused = true)]
    async fn the_count_itself_is_bounded() {
        let comings = Comings::default();
        for n in 0..10_000 {
            comings.count(ExecId::from_bytes([1; 16]), n.to_string());
        }
        assert!(comings.0.lock().unwrap().len() <= MAX_PAIRS);
    }
}
