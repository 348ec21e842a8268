//! How often somebody may come.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::limits::{RateBy, RateLimit};

/// So many a minute, and so many at once after a rest. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rate {
    a_minute: u32,
    burst: u32,
    /// What is left, and when that was so.
    left: Arc<Mutex<(f64, Instant)>>,
}

impl Rate {
    /// With `a_minute` of 0: as often as it likes. At least one comes at once.
    pub fn new(a_minute: u32, burst: u32) -> Self {
        let burst = burst.max(1);
        Self { a_minute, burst, left: Arc::new(Mutex::new((burst.into(), Instant::now()))) }
    }

    /// How many may come a minute.
    pub const fn a_minute(&self) -> u32 {
        self.a_minute
    }

    /// Whether it is as if nobody had come.
    fn is_rested(&self) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.0 + left.1.elapsed().as_secs_f64() * f64::from(self.a_minute) / 60.0 >= self.burst.into()
    }

    /// One comes, or is told after how long it may.
    pub fn take(&self) -> Result<(), Duration> {
        if self.a_minute == 0 {
            return Ok(());
        }
        let a_second = f64::from(self.a_minute) / 60.0;
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let grown = left.0 + (now - left.1).as_secs_f64() * a_second;
        *left = (grown.min(self.burst.into()), now);
        if left.0 < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - left.0) / a_second));
        }
        left.0 -= 1.0;
        Ok(())
    }
}

/// How many are told apart at a time.
const MOST: usize = 4096;

/// A rate for each of many, of whom nobody knows how many there are: names that clients may make up.
#[derive(Debug)]
pub struct Rates {
    limit: RateLimit,
    each: Mutex<HashMap<String, Rate>>,
    /// Of all for whom there is no place.
    rest: Rate,
}

impl Rates {
    /// Nobody has come yet.
    pub fn new(limit: RateLimit) -> Self {
        let rest = Rate::new(limit.a_minute, limit.burst);
        Self { limit, each: Mutex::default(), rest }
    }

    /// By what requests are told apart.
    pub const fn by(&self) -> RateBy {
        self.limit.by
    }

    /// How many may come a minute.
    pub const fn a_minute(&self) -> u32 {
        self.limit.a_minute
    }

    /// One comes under this name, or is told after how long it may.
    pub fn take(&self, name: String) -> Result<(), Duration> {
        if self.limit.a_minute == 0 {
            return Ok(());
        }
        let mut each = self.each.lock().unwrap_or_else(PoisonError::into_inner);
        if each.len() >= MOST && !each.contains_key(&name) {
            each.retain(|_, rate| !rate.is_rested());
        }
        let rate = if each.len() >= MOST && !each.contains_key(&name) {
            self.rest.clone()
        } else {
            each.entry(name).or_insert_with(|| Rate::new(self.limit.a_minute, self.limit.burst)).clone()
        };
        drop(each);
        rate.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_burst_one_comes_when_its_time_has() {
        let rate = Rate::new(120, 3);
        assert!((0..3).all(|_| rate.take().is_ok()));
        assert_eq!(rate.take(), Err(Duration::from_millis(500)));
        tokio::time::advance(Duration::from_millis(500)).await;
        assert!(rate.take().is_ok() && rate.take().is_err());
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(
            (0..10).filter(|_| rate.take().is_ok()).count(),
            3,
            "a long rest is worth no more than a burst"
        );
        assert!((0..1000).all(|_| Rate::new(0, 1).take().is_ok()));
    }

    #[tokio::test(start_paused = true)]
    async fn each_has_its_own_and_names_that_are_made_up_share_one() {
        let rates = Rates::new(RateLimit { by: RateBy::Owner, a_minute: 60, burst: 1 });
        let come = |name: String| rates.take(name).is_ok();
        assert!(come("a".to_owned()) && !come("a".to_owned()) && come("b".to_owned()));
        let let_in = (0..100_000).filter(|n| come(format!("made up {n}"))).count();
        assert!(let_in <= MOST + 1, "{let_in}");
        assert!(rates.each.lock().unwrap().len() <= MOST);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(come("c".to_owned()), "who has rested makes room");
    }
}
