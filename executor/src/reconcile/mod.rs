//! Makes what is there and what the log says the same thing: at the start, and every few seconds.
//!
//! It takes no input and may run any number of times. What it can take over it takes over (boxes, running execs at the
//! offset that is recorded); what the log says and is not there it reports; what is there and nobody knows it removes.
//!
//! Each sandbox is looked at in a task of its own: as many at once as the node has boxes, each for a while at most, and none
//! in the way of another, of the node's joining, or of its end. An agent that says nothing costs its own sandbox only.

mod agents;
mod gone;
mod strays;
mod taking_over;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dashmap::{DashMap, DashSet};
use events::{
    ErrorChain, ExecId, ExecOutcomeUnknown, ExecState, ProviderName, SandboxId, SandboxRunning, SandboxState,
};
use tokio::task::JoinSet;
use transport::SandboxRecord;

use crate::context::Context;
use crate::hosted::Round;
use crate::provider::{BoxHandle, Pooled, Provider};
use crate::shared::Shared;

use agents::Silence;

/// How often it runs.
pub const PERIOD: Duration = Duration::from_secs(5);
/// How long a provider may take to say what boxes there are.
const LIST: Duration = Duration::from_secs(20);
/// How long a round waits for its sandboxes: what answers at once has been taken over when it is over. The others go on.
const ROUND: Duration = Duration::from_secs(2);
/// The longest that one sandbox is looked at. The next round begins anew with it.
const LOOK: Duration = Duration::from_secs(60);

/// What reconciliation waits for, and since when.
#[derive(Default)]
pub struct Waiting {
    /// Boxes that nobody knows.
    strays: Mutex<HashMap<SandboxId, Instant>>,
    /// Execs that were asked for and have not begun.
    pending: Mutex<HashMap<ExecId, Instant>>,
    /// Agents that do not answer.
    silent: DashMap<SandboxId, Silence>,
    /// Sandboxes that are being looked at.
    busy: DashSet<SandboxId>,
}

/// Why it could not finish. It runs again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("cannot ask the record")]
    Record(#[from] transport::QueryError),
    #[error("cannot publish")]
    Publish(#[from] transport::PublishError),
}

/// A box that was found.
type Found = (Arc<dyn Provider>, BoxHandle);

/// One round. Can be given up at any time.
pub async fn reconcile(shared: &Arc<Shared>, waiting: &Arc<Waiting>) -> Result<(), ReconcileError> {
    // Asked before the boxes are listed: what the record knew to run then has a box now, or has lost it. The other way
    // round a sandbox that begins to run in between would count as vanished. A box that is made in between is a stray
    // for one round, and strays that are ours or being made are left alone.
    let round = shared.registry.begin_round();
    let records = shared.log.live_on_node(&shared.config.node).await?;
    let (mut boxes, unlisted) = list(shared).await;
    waiting.forget(&records, &boxes);
    let mut looks = JoinSet::new();
    for record in records {
        let id = record.sandbox.id;
        let found = boxes.remove(&id);
        if unlisted.contains(&record.sandbox.spec.provider) {
            continue;
        }
        let look = Look { shared: Arc::clone(shared), waiting: Arc::clone(waiting), round, id };
        looks.spawn(look.at(async move |look| look.at_live(&record, found).await));
    }
    for (id, found) in boxes {
        let look = Look { shared: Arc::clone(shared), waiting: Arc::clone(waiting), round, id };
        looks.spawn(look.at(async move |look| look.at_stray(found).await));
    }
    let _ = tokio::time::timeout(ROUND, async { while looks.join_next().await.is_some() {} }).await;
    looks.detach_all();
    Ok(())
}

/// All boxes that there are, and the providers that do not say.
async fn list(shared: &Shared) -> (HashMap<SandboxId, Found>, Vec<ProviderName>) {
    let (mut boxes, mut unlisted) = (HashMap::new(), Vec::new());
    for Pooled { provider, .. } in &shared.providers {
        match tokio::time::timeout(LIST, provider.list()).await {
            Ok(Ok(list)) => {
                boxes.extend(list.into_iter().map(|handle| (handle.id, (Arc::clone(provider), handle))));
                continue;
            }
            Ok(Err(error)) => {
                tracing::warn!(provider = %provider.name(), error = %ErrorChain(&error), "boxes cannot be listed");
            }
            Err(_) => tracing::warn!(provider = %provider.name(), "boxes were not listed in time"),
        }
        unlisted.push(provider.name().clone());
    }
    (boxes, unlisted)
}

impl Waiting {
    /// What is not there any more.
    fn forget(&self, records: &[SandboxRecord], boxes: &HashMap<SandboxId, Found>) {
        let execs = records.iter().flat_map(|record| &record.live_execs);
        let pending: HashSet<ExecId> = execs.filter(|exec| exec.pending).map(|exec| exec.id).collect();
        hold(&self.pending).retain(|exec, _| pending.contains(exec));
        // What the record knows again is no stray, and has all of the time again if it becomes one.
        let live: HashSet<SandboxId> = records.iter().map(|record| record.sandbox.id).collect();
        hold(&self.strays).retain(|id, _| boxes.contains_key(id) && !live.contains(id));
        self.silent.retain(|id, _| boxes.contains_key(id));
    }
}

fn hold<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One look at one sandbox.
struct Look {
    shared: Arc<Shared>,
    waiting: Arc<Waiting>,
    round: Round,
    id: SandboxId,
}

impl Look {
    /// Takes the time that it takes, within bounds, unless an earlier look is not over yet.
    async fn at(self, work: impl AsyncFnOnce(&Self) -> Result<(), ReconcileError>) {
        if !self.waiting.busy.insert(self.id) {
            return;
        }
        let _busy = Busy(&self);
        tokio::select! {
            () = self.shared.shutdown.cancelled() => {}
            outcome = tokio::time::timeout(LOOK, work(&self)) => match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(sandbox.id = %self.id, error = %ErrorChain(&error), "it will be looked at again");
                }
                Err(_) => tracing::debug!(sandbox.id = %self.id, "looking at it took too long"),
            }
        }
    }

    async fn at_live(&self, record: &SandboxRecord, found: Option<Found>) -> Result<(), ReconcileError> {
        let registry = &self.shared.registry;
        if registry.is_creating(self.id) || registry.has_left_since(self.id, self.round) {
            return Ok(());
        }
        match found {
            Some((provider, handle)) if handle.running => self.take_over(record, provider, &handle).await,
            found => gone::gone(&self.shared, record, found).await,
        }
    }
}

/// Marks a sandbox as being looked at, until it is dropped.
struct Busy<'a>(&'a Look);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.waiting.busy.remove(&self.0.id);
    }
}

/// The news of a box that runs, for whoever was to tell it and could not.
async fn runs(shared: &Shared, state: &SandboxState, handle: &BoxHandle) -> Result<(), ReconcileError> {
    let context = Context::of_sandbox(state, &shared.config.node, &shared.clock);
    let node = shared.config.node.clone();
    let ends = state.term.map(|term| term.ends(shared.clock.now()));
    let running = SandboxRunning {
        node,
        runtime_id: handle.runtime_id.clone(),
        took_us: 0,
        expires_at: ends.map(|(expires_at, _)| expires_at),
        lifetime_ends_at: ends.map(|(_, lifetime_ends_at)| lifetime_ends_at),
        address: handle.address,
    };
    Ok(shared.log.publish(&[context.event_once("running", running)]).await?)
}

/// Of one that has ended only its output was open.
async fn unknown(
    shared: &Shared,
    state: &SandboxState,
    exec: &ExecState,
    message: &str,
) -> Result<(), ReconcileError> {
    let context = Context::of_sandbox(state, &shared.config.node, &shared.clock);
    let event = if exec.end.is_some() {
        context.output_gone(exec)
    } else {
        context.event(ExecOutcomeUnknown { exec: exec.id, message: message.to_owned() })
    };
    Ok(shared.log.publish(&[event]).await?)
}
