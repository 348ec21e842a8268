//! What this executor has right now: a picture of boxes and agents, rebuilt at every start.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use agent::client::Client;
use chrono::{DateTime, Utc};
use dashmap::{DashMap, DashSet};
use events::{Actor, EndCause, ExecId, SandboxId, TenantId};
use secrets::Redaction;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::provider::Provider;

/// Requests of gateways to one sandbox that are served at once.
const MOST_REQUESTS: usize = 256;

/// A sandbox of this node.
pub struct Hosted {
    pub id: SandboxId,
    pub tenant: TenantId,
    pub provider: Arc<dyn Provider>,
    pub agent: Client,
    /// What is masked in all that it writes: its own secrets, and what the operator's rules find.
    pub redaction: Redaction,
    /// Its execs whose output is being pumped right now.
    pub execs: DashSet<ExecId>,
    /// Execs about which more is published than their pump does: what clients send to them. The stream of events keeps all of it in
    /// order, so the pump may not go past it.
    in_order: DashSet<ExecId>,
    /// Those of them that have ended, by the record, and whose output is open.
    pub open: DashSet<ExecId>,
    /// What is masked for those that have secrets of their own.
    pub maskings: DashMap<ExecId, Redaction>,
    /// The pumps, so that a destroy can wait for their last events.
    pub pumps: TaskTracker,
    /// Set when it is being destroyed: whatever ends from here on ends because of that.
    closing: AtomicBool,
    /// Who asked for the end of the sandbox.
    ended_by: Mutex<Option<Actor>>,
    /// Who asked for the end of an exec.
    kills: DashMap<ExecId, Actor>,
    /// Places for what gateways ask of it.
    pub requests: Arc<Semaphore>,
    /// Its box is gone: whatever still waits for its agent waits in vain.
    gone: CancellationToken,
    /// Until when it may live, as far as is known here.
    deadline: Mutex<Option<DateTime<Utc>>>,
    /// Whether this executor is ending it because it is overdue.
    ending: AtomicBool,
}

impl Hosted {
    pub fn new(
        id: SandboxId,
        tenant: TenantId,
        provider: Arc<dyn Provider>,
        agent: Client,
        redaction: Redaction,
    ) -> Self {
        Self {
            id,
            tenant,
            provider,
            agent,
            redaction,
            execs: DashSet::new(),
            in_order: DashSet::new(),
            open: DashSet::new(),
            maskings: DashMap::new(),
            pumps: TaskTracker::new(),
            closing: AtomicBool::new(false),
            ended_by: Mutex::default(),
            kills: DashMap::new(),
            requests: Arc::new(Semaphore::new(MOST_REQUESTS)),
            gone: CancellationToken::new(),
            deadline: Mutex::default(),
            ending: AtomicBool::new(false),
        }
    }

    /// What is masked in what an exec reads.
    pub fn redaction_of(&self, exec: ExecId) -> Redaction {
        self.maskings.get(&exec).map_or_else(|| self.redaction.clone(), |own| own.clone())
    }

    /// Who asks for the end of the sandbox; the first counts.
    pub fn note_end(&self, by: &Actor) {
        self.ended_by.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| by.clone());
    }

    /// Who asks for the end of an exec; the first counts.
    pub fn note_kill(&self, exec: ExecId, by: &Actor) {
        self.kills.entry(exec).or_insert_with(|| by.clone());
    }

    /// Who asked for the end of an exec, as far as this executor was asked.
    pub fn asked_by(&self, exec: ExecId, cause: EndCause) -> Option<Actor> {
        match cause {
            EndCause::Request => self.kills.get(&exec).map(|by| by.clone()),
            EndCause::Sandbox => self.ended_by.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// From here on everything about this exec goes through the stream of events.
    pub fn keep_in_order(&self, exec: ExecId) {
        if self.execs.contains(&exec) {
            self.in_order.insert(exec);
        }
    }

    /// Whether everything about this exec has to go through the stream of events.
    pub fn is_kept_in_order(&self, exec: ExecId) -> bool {
        self.in_order.contains(&exec)
    }

    /// What was kept of an exec that is over.
    pub fn forget(&self, exec: ExecId) {
        self.in_order.remove(&exec);
        self.maskings.remove(&exec);
        self.kills.remove(&exec);
        self.open.remove(&exec);
        self.execs.remove(&exec);
    }

    /// Marks it as being destroyed for as long as what is returned lives, or for good when that is told so; `None` when somebody
    /// else already does that.
    pub fn close(self: &Arc<Self>) -> Option<Closing> {
        (!self.closing.swap(true, Ordering::AcqRel))
            .then(|| Closing { hosted: Arc::clone(self), for_good: false })
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Its box is gone.
    pub fn set_gone(&self) {
        self.gone.cancel();
    }

    /// Waits until its box is gone.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// It has this long. What is heard later may be older: a deadline only moves away.
    pub fn may_live_until(&self, deadline: DateTime<Utc>) {
        let mut known = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(known.map_or(deadline, |known| known.max(deadline)));
    }

    /// Until when it may live.
    pub fn deadline(&self) -> Option<DateTime<Utc>> {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks it as being ended for being overdue; `false` when it is already.
    pub fn begin_ending(&self) -> bool {
        !self.ending.swap(true, Ordering::AcqRel)
    }
}

/// Somebody destroys a sandbox. Whoever fails at it, or is given up, leaves it to the next one.
pub struct Closing {
    hosted: Arc<Hosted>,
    for_good: bool,
}

impl Closing {
    /// It has ended, and the log says so.
    pub fn over(mut self) {
        self.for_good = true;
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if !self.for_good {
            self.hosted.closing.store(false, Ordering::Release);
        }
    }
}

/// All sandboxes of this node.
#[derive(Default)]
pub struct Registry {
    hosted: DashMap<SandboxId, Arc<Hosted>>,
    /// Boxes that are being made: not hosted yet, and not strays either.
    creating: DashSet<SandboxId>,
    /// The round of reconciliation that began last.
    round: AtomicU64,
    /// Those that went, and the round that was the last when they did: what that round and those before were told of them is
    /// old.
    left: Mutex<HashMap<SandboxId, Round>>,
    /// Execs whose command did not come in time. They are in the log as failed, and must not begin any more.
    given_up: DashSet<ExecId>,
    freed: Notify,
}

/// Rounds of reconciliation are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Round(u64);

/// For how many rounds is remembered who left: longer than a look at a sandbox takes.
const REMEMBERED: u64 = 64;

/// Marks a box as being made, until it is dropped.
pub struct Creating {
    registry: Arc<Registry>,
    id: SandboxId,
}

impl Registry {
    pub fn get(&self, id: SandboxId) -> Option<Arc<Hosted>> {
        self.hosted.get(&id).map(|entry| Arc::clone(entry.value()))
    }

    pub fn insert(&self, hosted: Arc<Hosted>) {
        self.hosted.insert(hosted.id, hosted);
    }

    /// Takes up a sandbox that was found, unless it has left since the round began that found it.
    pub fn insert_found(&self, hosted: &Arc<Hosted>, round: Round) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.get(&hosted.id).is_some_and(|at| *at >= round) {
            return false;
        }
        self.insert(Arc::clone(hosted));
        true
    }

    /// A round of reconciliation begins, before it learns anything.
    pub fn begin_round(&self) -> Round {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let round = self.round.fetch_add(1, Ordering::AcqRel) + 1;
        left.retain(|_, at| at.0 + REMEMBERED > round);
        Round(round)
    }

    /// Whether it has left since this round began.
    pub fn has_left_since(&self, id: SandboxId, round: Round) -> bool {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.get(&id).is_some_and(|at| *at >= round)
    }

    pub fn remove(&self, id: SandboxId) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        left.insert(id, Round(self.round.load(Ordering::Acquire)));
        self.hosted.remove(&id);
        drop(left);
        self.freed.notify_waiters();
    }

    pub fn all(&self) -> Vec<Arc<Hosted>> {
        self.hosted.iter().map(|entry| Arc::clone(entry.value())).collect()
    }

    /// `None` when somebody else makes it already.
    pub fn begin_create(self: &Arc<Self>, id: SandboxId) -> Option<Creating> {
        self.creating.insert(id).then(|| Creating { registry: Arc::clone(self), id })
    }

    pub fn is_creating(&self, id: SandboxId) -> bool {
        self.creating.contains(&id)
    }

    pub fn give_up(&self, exec: ExecId) {
        self.given_up.insert(exec);
    }

    pub fn is_given_up(&self, exec: ExecId) -> bool {
        self.given_up.contains(&exec)
    }

    pub fn used(&self) -> usize {
        // What runs its first commands is both.
        let only_creating = self.creating.iter().filter(|id| !self.hosted.contains_key(&**id)).count();
        self.hosted.len() + only_creating
    }

    /// Waits until a place becomes free.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    /// Waits until fewer than `capacity` places are taken.
    pub async fn room(&self, capacity: usize) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.used() < capacity {
                return;
            }
            freed.await;
        }
    }
}

impl Drop for Creating {
    fn drop(&mut self) {
        self.registry.creating.remove(&self.id);
        self.registry.freed.notify_waiters();
    }
}

/// Stands for any provider where none is asked.
#[cfg(test)]
pub fn idle_provider() -> Arc<dyn Provider> {
    use crate::providers::docker::{DockerConfig, DockerProvider};
    let dir = tempfile::tempdir().unwrap();
    let config = DockerConfig::new(dir.path(), "/bin/true", "node-1".parse().unwrap()).unwrap();
    Arc::new(DockerProvider::new(config).unwrap())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosted(id: SandboxId) -> Arc<Hosted> {
        let agent = Client::new("/nowhere");
        Arc::new(Hosted::new(id, TenantId::default_tenant(), idle_provider(), agent, Redaction::default()))
    }

    #[test]
    fn a_destroy_that_fails_or_is_given_up_leaves_it_to_the_next_one() {
        let hosted = hosted(SandboxId::new());
        let first = hosted.close();
        assert!(first.is_some() && hosted.is_closing());
        assert!(hosted.close().is_none());
        drop(first);
        assert!(!hosted.is_closing());
        hosted.close().unwrap().over();
        assert!(hosted.is_closing() && hosted.close().is_none());
    }

    #[test]
    fn what_leaves_during_a_round_does_not_come_back_by_it() {
        let registry = Registry::default();
        let (left, stays) = (SandboxId::new(), SandboxId::new());
        for id in [left, stays] {
            registry.insert(hosted(id));
        }
        let round = registry.begin_round();
        registry.remove(left);
        // The round was told of both before.
        assert!(registry.has_left_since(left, round) && !registry.has_left_since(stays, round));
        assert!(!registry.insert_found(&hosted(left), round));
        assert!(registry.insert_found(&hosted(stays), round));
        assert_eq!(registry.used(), 1);
        let next = registry.begin_round();
        // A look of the round before may still be under way.
        assert!(!registry.insert_found(&hosted(left), round));
        // The next round asks anew: what it is told of is there.
        assert!(registry.insert_found(&hosted(left), next));
    }
}
