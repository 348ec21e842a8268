//! How much of other people's bytes is in memory at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What is counted: rounding up to it keeps counts within 32 bits.
const UNIT: usize = 1024;
/// How long a body waits for others to be done with theirs.
const PATIENCE: Duration = Duration::from_secs(5);

/// A number of bytes that may be taken and is given back.
#[derive(Debug, Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    all: u32,
}

/// Bytes that were taken, of each budget that they count to.
#[derive(Debug, Default)]
pub struct Held(Vec<OwnedSemaphorePermit>);

impl Budget {
    /// Of so many bytes; 0: without end.
    pub fn new(bytes: usize) -> Self {
        let most = u32::MAX >> 4;
        let all = if bytes == 0 { most } else { units(bytes).clamp(1, most) };
        Self { units: Arc::new(Semaphore::new(all as usize)), all }
    }

    /// What is more than there is takes all of it.
    fn share(&self, bytes: usize) -> u32 {
        units(bytes).min(self.all)
    }

    async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.units).acquire_many_owned(self.share(bytes)).await.ok()
    }

    fn try_take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.units).try_acquire_many_owned(self.share(bytes)).ok()
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// Takes bytes of all these budgets, in this order, and waits a while until they are there. `None`: they did not become free.
pub async fn take(budgets: &[&Budget], bytes: usize) -> Option<Held> {
    let taken = async {
        let mut held = Held::default();
        for budget in budgets {
            held.0.push(budget.take(bytes).await?);
        }
        Some(held)
    };
    tokio::time::timeout(PATIENCE, taken).await.ok().flatten()
}

/// The same, now or not at all: for who holds some already, and would wait for others who do the same.
pub fn try_take(budgets: &[&Budget], bytes: usize) -> Option<Held> {
    let mut held = Held::default();
    for budget in budgets {
        held.0.push(budget.try_take(bytes)?);
    }
    Some(held)
}

impl Held {
    /// Both together.
    pub fn add(&mut self, more: Self) {
        self.0.extend(more.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_taken_of_all_budgets_or_of_none() {
        let (own, all) = (Budget::new(100 << 10), Budget::new(150 << 10));
        let first = take(&[&own, &all], 60 << 10).await.unwrap();
        assert!(try_take(&[&own, &all], 60 << 10).is_none(), "of its own there is no more");
        let other = Budget::new(0);
        let second = take(&[&other, &all], 90 << 10).await.unwrap();
        assert!(take(&[&own, &all], 1).await.is_none(), "of everybody's there is no more");
        assert_eq!(own.units.available_permits(), 40, "what could not be had in full is given back");
        drop((first, second));
        assert_eq!((own.units.available_permits(), all.units.available_permits()), (100, 150));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_it_when_it_is_given_back() {
        let budget = Budget::new(10 << 10);
        let held = take(&[&budget], 1 << 30).await.unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { take(&[&budget], 10 << 10).await.is_some() }
        });
        tokio::time::sleep(PATIENCE / 2).await;
        drop(held);
        assert!(waiting.await.unwrap());
    }
}
