//! What takes long is done in turn: a few at a time, fewer of one tenant, and whoever had the fewest next. An operator has
//! a place of its own.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use events::TenantId;
use tokio::sync::oneshot;

/// How many of a tenant may wait.
const MOST_WAITING: usize = 16;
/// How long one waits for its turn.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who may be at work. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Turns {
    queue: Arc<Mutex<Queue>>,
    places: usize,
    of_tenant: usize,
}

#[derive(Debug, Default)]
struct Queue {
    working: HashMap<Who, usize>,
    waiting: VecDeque<(Who, oneshot::Sender<Turn>)>,
    /// When each had its last turn, counted in turns.
    last: HashMap<Who, u64>,
    given: u64,
}

/// Whose turn it is: all operators are one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    Operator,
    Tenant(TenantId),
}

/// A turn, until it is over.
#[derive(Debug)]
pub struct Turn {
    who: Who,
    turns: Turns,
}

impl Turns {
    /// So many at a time, and so many of one tenant; and one for operators besides.
    pub fn new(places: usize, of_tenant: usize) -> Self {
        Self { queue: Arc::default(), places, of_tenant }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn; `None`: it did not come in time, or too many of the tenant wait already.
    pub async fn take(&self, tenant: &TenantId, is_operator: bool) -> Option<Turn> {
        let who = if is_operator { Who::Operator } else { Who::Tenant(tenant.clone()) };
        let turn = {
            let mut queue = self.queue();
            if queue.waiting.iter().filter(|(waits, turn)| *waits == who && !turn.is_closed()).count()
                >= MOST_WAITING
            {
                return None;
            }
            let (give, turn) = oneshot::channel();
            queue.waiting.push_back((who, give));
            turn
        };
        self.call();
        tokio::time::timeout(PATIENCE, turn).await.ok()?.ok()
    }

    /// Gives turns to whoever may have one.
    fn call(&self) {
        loop {
            let next = self.queue().next(self.places, self.of_tenant);
            let Some((who, give)) = next else { return };
            // Whoever does not wait any more gives it back at once, and the next one is called.
            drop(give.send(Turn { who, turns: self.clone() }));
        }
    }
}

impl Queue {
    /// The next one, which works from now on.
    fn next(&mut self, places: usize, of_tenant: usize) -> Option<(Who, oneshot::Sender<Turn>)> {
        self.waiting.retain(|(_, give)| !give.is_closed());
        let at_work = |who: &Who| self.working.get(who).copied().unwrap_or(0);
        let tenants: usize =
            self.working.iter().filter(|(who, _)| **who != Who::Operator).map(|(_, n)| n).sum();
        let may = |who: &Who| match who {
            Who::Operator => at_work(who) == 0 || tenants + at_work(who) <= places,
            Who::Tenant(_) => tenants < places && at_work(who) < of_tenant,
        };
        let had = |who: &Who| self.last.get(who).copied().unwrap_or(0);
        let (at, _) = self
            .waiting
            .iter()
            .enumerate()
            .filter(|(_, (who, _))| may(who))
            .min_by_key(|(at, (who, _))| (*who != Who::Operator, at_work(who), had(who), *at))?;
        let (who, give) = self.waiting.remove(at)?;
        self.given += 1;
        self.last.insert(who.clone(), self.given);
        *self.working.entry(who.clone()).or_default() += 1;
        Some((who, give))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        {
            let mut queue = self.turns.queue();
            if let Some(count) = queue.working.get_mut(&self.who) {
                *count -= 1;
                if *count == 0 {
                    queue.working.remove(&self.who);
                }
            }
        }
        self.turns.call();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn one_tenants_queue_is_not_before_anothers() {
        let turns = Turns::new(1, 1);
        let first = turns.take(&tenant("red"), false).await.unwrap();
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut asked = Vec::new();
        for name in ["red", "red", "red", "blue", "blue", "green"] {
            let (turns, done) = (turns.clone(), done.clone());
            asked.push(tokio::spawn(async move {
                let turn = turns.take(&tenant(name), false).await.unwrap();
                done.send(name).unwrap();
                drop(turn);
            }));
            tokio::task::yield_now().await;
        }
        drop(first);
        for one in asked {
            one.await.unwrap();
        }
        let mut found = Vec::new();
        while let Ok(name) = order.try_recv() {
            found.push(name);
        }
        assert_eq!(found, ["blue", "green", "red", "blue", "red", "red"]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_operator_has_its_turn_whoever_else_works() {
        let turns = Turns::new(2, 1);
        let red = turns.take(&tenant("red"), false).await.unwrap();
        assert!(turns.take(&tenant("red"), false).await.is_none(), "it has one");
        let blue = turns.take(&tenant("blue"), false).await.unwrap();
        assert!(turns.take(&tenant("green"), false).await.is_none(), "all are given");
        let operator = turns.take(&tenant("red"), true).await.unwrap();
        assert!(turns.take(&tenant("red"), true).await.is_none(), "operators take no places of others");
        drop(blue);
        assert!(turns.take(&tenant("green"), false).await.is_some());
        drop((red, operator));
        let queue = turns.queue();
        assert!(queue.working.is_empty() && queue.waiting.iter().all(|(_, give)| give.is_closed()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_of_who_went_away_is_the_next_ones_and_few_may_wait() {
        let turns = Turns::new(1, 1);
        let first = turns.take(&tenant("red"), false).await.unwrap();
        let waiting: Vec<_> = (0..MOST_WAITING)
            .map(|_| {
                let turns = turns.clone();
                tokio::spawn(async move { turns.take(&tenant("red"), false).await.is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(turns.take(&tenant("red"), false).await.is_none());
        waiting.iter().for_each(tokio::task::JoinHandle::abort);
        let blue = {
            let turns = turns.clone();
            tokio::spawn(async move { turns.take(&tenant("blue"), false).await.is_some() })
        };
        tokio::task::yield_now().await;
        drop(first);
        assert!(blue.await.unwrap());
    }
}
