//! Whose turn it is: how much of a node's work at once is one tenant's.
//!
//! Making a box, removing it and starting a process cost the whole machine: CPUs, the engine, the disk under the log. One tenant
//! that asks for hundreds of them at once waits for its own, and the next tenant's command finds the node free.

use std::hash::Hash;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use events::{SandboxId, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::neighbours::Neighbours;

/// Places for one kind of work, so many for each of those who ask.
#[derive(Debug)]
pub struct Turns<K: Eq + Hash> {
    each: usize,
    places: Arc<DashMap<K, Arc<Semaphore>>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub struct Turn<K: Eq + Hash> {
    of: K,
    places: Arc<DashMap<K, Arc<Semaphore>>>,
    held: Option<OwnedSemaphorePermit>,
}

impl<K: Eq + Hash + Clone> Turns<K> {
    /// So many places for each and CPU of this machine.
    pub fn a_cpu(places: usize) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::new(places.saturating_mul(cpus))
    }

    fn new(each: usize) -> Self {
        Self { each: each.max(1), places: Arc::default() }
    }

    /// Waits for a place: first come, first served among those who ask for the same.
    pub async fn take(&self, of: &K) -> Turn<K> {
        let places =
            Arc::clone(&self.places.entry(of.clone()).or_insert_with(|| Arc::new(Semaphore::new(self.each))));
        let mut turn = Turn { of: of.clone(), places: Arc::clone(&self.places), held: None };
        // Nobody closes it; if somebody did, work would go on without places.
        turn.held = places.acquire_owned().await.ok();
        turn
    }
}

impl<K: Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        drop(self.held.take());
        // Who waits holds the semaphore too, so it goes with the last one who wants it.
        self.places.remove_if(&self.of, |_, places| Arc::strong_count(places) == 1);
    }
}

/// Making boxes and removing them takes turns.
#[derive(Debug)]
pub struct BoxWork {
    launches: Turns<TenantId>,
    removals: Turns<TenantId>,
    /// Both, of a tenant that is not alone: an engine that makes and removes boxes keeps a CPU busy, and the disk under the log.
    among_others: Turns<TenantId>,
    neighbours: Arc<Neighbours>,
}

/// A place for work on a box, until it is dropped.
#[derive(Debug)]
pub struct BoxTurn {
    _own: Turn<TenantId>,
    _among_others: Option<Turn<TenantId>>,
}

impl Default for BoxWork {
    fn default() -> Self {
        Self::new(&Arc::default())
    }
}

impl BoxWork {
    pub(crate) fn new(neighbours: &Arc<Neighbours>) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            launches: Turns::a_cpu(1),
            removals: Turns::a_cpu(1),
            among_others: Turns::new(cpus / 2),
            neighbours: Arc::clone(neighbours),
        }
    }

    /// Waits for a place to make or start one.
    pub async fn launch(&self, tenant: &TenantId) -> BoxTurn {
        self.neighbours.note(tenant);
        self.take(&self.launches, tenant).await
    }

    /// Waits for a place to remove one.
    pub async fn removal(&self, tenant: &TenantId) -> BoxTurn {
        self.take(&self.removals, tenant).await
    }

    async fn take(&self, own: &Turns<TenantId>, tenant: &TenantId) -> BoxTurn {
        let own = own.take(tenant).await;
        let among_others = match self.neighbours.has_others_than(tenant) {
            true => Some(self.among_others.take(tenant).await),
            false => None,
        };
        BoxTurn { _own: own, _among_others: among_others }
    }
}

/// What starts processes on a node takes turns.
#[derive(Debug)]
pub struct Starts {
    tenants: Turns<TenantId>,
    sandboxes: Turns<SandboxId>,
}

impl Default for Starts {
    fn default() -> Self {
        Self { tenants: Turns::a_cpu(8), sandboxes: Turns::a_cpu(4) }
    }
}

impl Starts {
    /// How long a start has its place at most. An agent that says nothing must not keep its tenant's other sandboxes waiting.
    const LONGEST: Duration = Duration::from_millis(100);

    /// Begins the work when it is this sandbox's and its tenant's turn.
    pub async fn in_turn<T>(
        &self,
        tenant: &TenantId,
        sandbox: SandboxId,
        work: impl Future<Output = T>,
    ) -> T {
        // The sandbox first: those of a busy one wait outside of what its tenant has.
        let sandbox = self.sandboxes.take(&sandbox).await;
        let places = (sandbox, self.tenants.take(tenant).await);
        tokio::pin!(work);
        if let Ok(done) = tokio::time::timeout(Self::LONGEST, &mut work).await {
            return done;
        }
        drop(places);
        work.await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_tenant_that_asks_for_much_waits_for_its_own_and_nobody_else_does() {
        let (turns, red, blue) = (Turns::new(2), tenant("red"), tenant("blue"));
        let mut taken = vec![turns.take(&red).await, turns.take(&red).await];
        assert!(turns.take(&red).now_or_never().is_none());
        let other = turns.take(&blue).now_or_never();
        assert!(other.is_some());
        taken.pop();
        assert!(turns.take(&red).now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_tenant_alone_works_on_more_boxes_than_one_among_others() {
        let (red, blue) = (tenant("red"), tenant("blue"));
        let neighbours = Arc::default();
        let each = || Turns::new(2);
        let work = BoxWork {
            launches: each(),
            removals: each(),
            among_others: Turns::new(1),
            neighbours: Arc::clone(&neighbours),
        };
        let alone = [work.launch(&red).await, work.removal(&red).await, work.removal(&red).await];
        drop(alone);
        neighbours.note(&blue);
        let first = work.launch(&red).await;
        assert!(work.removal(&red).now_or_never().is_none());
        assert!(work.launch(&blue).now_or_never().is_some());
        drop(first);
        assert!(work.removal(&red).now_or_never().is_some());
    }

    #[tokio::test]
    async fn what_nobody_wants_any_more_is_not_kept() {
        let turns = Turns::new(1);
        let names: Vec<TenantId> = (0..50).map(|n| tenant(&format!("t{n}"))).collect();
        for name in &names {
            let first = turns.take(name).await;
            // Given up while it waits.
            assert!(turns.take(name).now_or_never().is_none());
            drop(first);
        }
        assert_eq!(turns.places.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn agents_that_say_nothing_keep_nobody_elses_starts_waiting() {
        let starts = Arc::new(Starts { tenants: Turns::new(4), sandboxes: Turns::new(2) });
        let (red, silent, other) = (tenant("red"), SandboxId::new(), SandboxId::new());
        for _ in 0..1_000 {
            let (starts, red) = (Arc::clone(&starts), red.clone());
            tokio::spawn(async move { starts.in_turn(&red, silent, std::future::pending::<()>()).await });
        }
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        assert_eq!(starts.in_turn(&red, other, async { 7 }).await, 7);
        assert_eq!(began.elapsed(), Duration::ZERO);
        // All of them get to begin, too.
        tokio::time::sleep(Starts::LONGEST * 501).await;
        assert!(starts.sandboxes.places.is_empty() && starts.tenants.places.is_empty());
    }
}
