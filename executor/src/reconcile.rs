//! Makes what is there and what the log says the same thing: at the start, and every few seconds.
//!
//! It takes no input and may run any number of times. What it can take over it takes over (boxes, running execs at the
//! offset that is recorded); what the log says and is not there it reports; what is there and nobody knows it removes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::client::{CallError, Client};
use agent::protocol::{Attach, AttachRefusal, Stream};
use events::{
    Actor, DestroyReason, ErrorChain, Event, EventId, ExecFailed, ExecId, ExecOutcomeUnknown, ExecState,
    FailureCode, Redaction, SandboxDestroyed, SandboxId, SandboxPhase, SandboxRecord, SandboxRunning,
    SandboxState,
};

use crate::context::Context;
use crate::exec::{Exec, Resume};
use crate::hosted::Hosted;
use crate::provider::{BoxHandle, Provider};
use crate::service::Shared;

/// How often it runs.
pub const PERIOD: Duration = Duration::from_secs(5);
/// How long a box may be unknown to the log: its command may be under way again after a crash.
const STRAY_GRACE: Duration = Duration::from_secs(60);
/// The same for a box of our own making, whose request may still be on its way to the record.
const UNHEARD_GRACE: Duration = Duration::from_secs(300);

/// How long what was published just now may take to the record.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// How long an exec that was asked for may wait for its command. Commands wait in their queue, not on the way: after so
/// long with an executor that takes them, it is lost.
const PENDING_GRACE: Duration = Duration::from_secs(60);

/// What reconciliation waits for, and since when.
#[derive(Default)]
pub struct Waiting {
    /// Boxes that nobody knows.
    strays: HashMap<SandboxId, Instant>,
    /// Execs that were asked for and have not begun.
    pending: HashMap<ExecId, Instant>,
}

/// Why it could not finish. It runs again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("cannot ask the record")]
    Record(#[from] events::QueryError),
    #[error("cannot publish")]
    Publish(#[from] events::PublishError),
}

/// One round.
pub async fn reconcile(shared: &Arc<Shared>, waiting: &mut Waiting) -> Result<(), ReconcileError> {
    // Asked before the boxes are listed: what the record knew to run then has a box now, or has lost it. The other way
    // round a sandbox that begins to run in between would count as vanished. A box that is made in between is a stray
    // for one round, and strays that are ours or being made are left alone.
    shared.registry.begin_round();
    let records = shared.log.live_on_node(&shared.config.node).await?;
    let mut boxes: HashMap<SandboxId, (Arc<dyn Provider>, BoxHandle)> = HashMap::new();
    let mut unlisted = Vec::new();
    for provider in &shared.providers {
        match provider.list().await {
            Ok(list) => {
                boxes.extend(list.into_iter().map(|handle| (handle.id, (Arc::clone(provider), handle))))
            }
            Err(error) => {
                tracing::warn!(provider = %provider.name(), error = %ErrorChain(&error), "boxes cannot be listed");
                unlisted.push(provider.name().clone());
            }
        }
    }
    let pending: HashSet<ExecId> = records
        .iter()
        .flat_map(|record| &record.live_execs)
        .filter(|exec| exec.pending)
        .map(|exec| exec.id)
        .collect();
    waiting.pending.retain(|exec, _| pending.contains(exec));
    for record in records {
        let id = record.sandbox.id;
        let found = boxes.remove(&id);
        if shared.registry.is_creating(id)
            || shared.registry.left_in_round(id)
            || unlisted.contains(&record.sandbox.spec.provider)
        {
            continue;
        }
        match found {
            Some((provider, handle)) if handle.running => {
                take_over(shared, waiting, &record, provider, &handle).await?
            }
            found => gone(shared, &record, found).await?,
        }
    }
    remove_strays(shared, waiting, boxes).await
}

/// A live sandbox whose box runs.
async fn take_over(
    shared: &Arc<Shared>,
    waiting: &mut Waiting,
    record: &SandboxRecord,
    provider: Arc<dyn Provider>,
    handle: &BoxHandle,
) -> Result<(), ReconcileError> {
    let state = &record.sandbox;
    let hosted = match shared.registry.get(state.id) {
        Some(hosted) => hosted,
        None => {
            let agent = Client::new(&handle.socket);
            let names = &state.spec.secret_names;
            let Some(redaction) = masking(&agent, None, names, &shared.redaction).await else {
                return Ok(());
            };
            let hosted = Arc::new(Hosted::new(state.id, state.tenant.clone(), provider, agent, redaction));
            if !shared.registry.insert_found(&hosted) {
                return Ok(());
            }
            tracing::info!(sandbox.id = %state.id, execs = record.live_execs.len(), "took a sandbox over");
            hosted
        }
    };
    if hosted.is_closing() {
        return Ok(());
    }
    // With commands to run first, its maker's command comes again and goes on with them.
    if matches!(state.phase, SandboxPhase::Starting { .. }) && state.spec.setup.is_empty() {
        // Its maker died between the box and the news of it.
        runs(shared, state, handle).await?;
    }
    for exec in &record.live_execs {
        if exec.pending {
            expect(shared, waiting, &hosted, state, exec).await?;
        } else {
            resume(shared, &hosted, state, exec).await?;
        }
    }
    Ok(())
}

/// What is masked, with the secrets that only the agent still knows. `None` when it does not tell: then nothing may be
/// published that could hold them, and the next round asks again.
async fn masking(
    agent: &Client,
    exec: Option<ExecId>,
    names: &[String],
    under: &Redaction,
) -> Option<Redaction> {
    if names.is_empty() {
        return Some(under.clone());
    }
    let exec_id = exec.map(|exec| exec.as_bytes().to_owned().into());
    match agent.secrets(exec_id, names.to_vec()).await {
        Ok(values) => Some(under.with_secrets(values)),
        // Nothing that it wrote is left.
        Err(CallError::Refused(_)) => Some(under.clone()),
        Err(error) => {
            tracing::warn!(error = %error, "an agent does not tell what must be masked");
            None
        }
    }
}

/// An exec that was asked for: its command will come, or has been lost and will not.
async fn expect(
    shared: &Arc<Shared>,
    waiting: &mut Waiting,
    hosted: &Arc<Hosted>,
    state: &SandboxState,
    exec: &ExecState,
) -> Result<(), ReconcileError> {
    let since = *waiting.pending.entry(exec.id).or_insert_with(Instant::now);
    if since.elapsed() < PENDING_GRACE || !hosted.execs.insert(exec.id) {
        return Ok(());
    }
    // From here on its command finds it taken, or given up.
    shared.registry.give_up(exec.id);
    let context = Context::of_sandbox(state, &shared.config.node, &shared.clock);
    // An agent that knows it has begun it, and the news of that was lost together with the command.
    let known = hosted.agent.kill_exec(exec.id.as_bytes().to_owned().into(), Duration::ZERO).await.is_ok();
    let end = if known {
        let message = "the news of its start was lost; it was ended".to_owned();
        context.event(ExecOutcomeUnknown { exec: exec.id, message })
    } else {
        never_began(&context, exec.id, FailureCode::CommandLost, "the command was lost on its way")
    };
    let told = shared.log.publish(&[end]).await;
    hosted.execs.remove(&exec.id);
    waiting.pending.remove(&exec.id);
    tracing::warn!(exec.id = %exec.id, "the command of a detached exec never came");
    Ok(told?)
}

/// The end of an exec that was asked for and will not begin. Told twice it is one event.
pub(crate) fn never_began(context: &Context, exec: ExecId, code: FailureCode, message: &str) -> Event {
    let failed = ExecFailed { exec, code, message: message.to_owned(), request_digest: None };
    Event { id: EventId::derived(&["exec.never_began", &exec.to_string()]), ..context.event(failed) }
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

/// Goes on with an exec that has not ended, from what is recorded of it.
async fn resume(
    shared: &Arc<Shared>,
    hosted: &Arc<Hosted>,
    state: &SandboxState,
    exec: &ExecState,
) -> Result<(), ReconcileError> {
    if !hosted.execs.insert(exec.id) {
        return Ok(());
    }
    let names = exec.spec.as_ref().map_or(&[][..], |spec| &spec.secret_names[..]);
    let Some(redaction) = masking(&hosted.agent, Some(exec.id), names, &hosted.redaction).await else {
        hosted.execs.remove(&exec.id);
        return Ok(());
    };
    let context = Context::of_sandbox(state, &shared.config.node, &shared.clock).masking(&redaction);
    let recorded = [exec.stdout_bytes, exec.stderr_bytes];
    // What is before that is looked at once more: a secret may reach over the bound.
    let back = redaction.lookbehind() as u64;
    let mut read = recorded.map(|offset| offset.saturating_sub(back));
    // The agent may have forgotten more than is recorded only where the output limit was reached.
    for _ in 0..=Stream::BOTH.len() {
        let attach = Attach {
            exec_id: exec.id.as_bytes().to_owned().into(),
            stdout_offset: read[0],
            stderr_offset: read[1],
        };
        match hosted.agent.attach_exec(attach).await {
            Ok(connection) => {
                let pumped = Exec {
                    id: exec.id,
                    hosted: Arc::clone(hosted),
                    context,
                    log: shared.log.clone(),
                    recorded: Arc::clone(&shared.recorded),
                    max_output_bytes: shared.config.max_output_bytes.min(recorded_limit(&read, &recorded)),
                    shutdown: shared.shutdown.clone(),
                };
                hosted.pumps.spawn(pumped.pump(connection, Resume::Recorded { recorded, read }));
                return Ok(());
            }
            Err(CallError::Refused(AttachRefusal::Released { stream, retained_from })) => {
                read[stream.index()] = retained_from;
            }
            Err(CallError::Refused(AttachRefusal::UnknownExec(_))) => break,
            Err(error) => {
                tracing::debug!(exec.id = %exec.id, error = %error, "cannot attach yet");
                hosted.execs.remove(&exec.id);
                return Ok(());
            }
        }
    }
    hosted.execs.remove(&exec.id);
    unknown(shared, state, exec, "the sandbox no longer knows of this command").await
}

/// Where the agent has forgotten what is not recorded, nothing after it may be recorded either: the record has no holes.
fn recorded_limit(read: &[u64; 2], recorded: &[u64; 2]) -> u64 {
    if read[0] <= recorded[0] && read[1] <= recorded[1] { u64::MAX } else { recorded[0] + recorded[1] }
}

async fn unknown(
    shared: &Shared,
    state: &SandboxState,
    exec: &ExecState,
    message: &str,
) -> Result<(), ReconcileError> {
    let context = Context::of_sandbox(state, &shared.config.node, &shared.clock);
    let event = context.event(ExecOutcomeUnknown { exec: exec.id, message: message.to_owned() });
    Ok(shared.log.publish(&[event]).await?)
}

/// A live sandbox without a running box.
async fn gone(
    shared: &Arc<Shared>,
    record: &SandboxRecord,
    remains: Option<(Arc<dyn Provider>, BoxHandle)>,
) -> Result<(), ReconcileError> {
    let state = &record.sandbox;
    // Agents count on a clock of their own, and may be a moment ahead of the log's.
    let expired = state.is_expired(shared.clock.now() + chrono::TimeDelta::seconds(2));
    if matches!(state.phase, SandboxPhase::Starting { .. }) && !expired {
        // Its command is not acknowledged and comes again.
        return Ok(());
    }
    let hosted = shared.registry.get(state.id);
    if hosted.as_ref().is_some_and(|hosted| !hosted.close()) {
        return Ok(());
    }
    if let Some((provider, handle)) = remains
        && let Err(error) = provider.destroy(handle.id).await
    {
        tracing::warn!(sandbox.id = %state.id, error = %ErrorChain(&error), "remains were not removed");
        hosted.iter().for_each(|hosted| hosted.reopen());
        return Ok(());
    }
    if let Some(hosted) = &hosted {
        // Pumps have the last word on their execs.
        hosted.pumps.close();
        let _ = tokio::time::timeout(Duration::from_secs(3), hosted.pumps.wait()).await;
    }
    let context = Context::of_sandbox(state, &shared.config.node, &shared.clock);
    for exec in &record.live_execs {
        if exec.pending {
            let message = "the sandbox went away before the command began";
            let event = never_began(&context, exec.id, FailureCode::SandboxGone, message);
            shared.log.publish(&[event]).await?;
        } else if hosted.is_none() {
            unknown(shared, state, exec, "the sandbox went away while the command ran").await?;
        }
    }
    let (reason, by) = why_gone(shared, state, expired).await;
    tracing::info!(sandbox.id = %state.id, ?reason, "a sandbox is gone");
    let context = by.map_or(context.clone(), |by| context.on_behalf_of(by));
    shared.log.publish(&[context.event(SandboxDestroyed { reason })]).await?;
    shared.registry.remove(state.id);
    Ok(())
}

/// Why a sandbox is gone, and who asked for that, if anybody did.
async fn why_gone(shared: &Shared, state: &SandboxState, expired: bool) -> (DestroyReason, Option<Actor>) {
    if state.ending.is_none() && !expired {
        // Whoever destroyed it said so before, and may have been killed since: that can still be on its way to the record.
        tokio::time::sleep(ON_ITS_WAY).await;
        if let Ok(Some(record)) = shared.log.sandbox_record(state.id).await
            && let Some(ending) = record.sandbox.ending
        {
            return (ending.reason, Some(ending.by));
        }
    }
    match &state.ending {
        Some(ending) => (ending.reason, Some(ending.by.clone())),
        None if expired => (state.expiry_reason(), None),
        None => (DestroyReason::Vanished, None),
    }
}

/// Boxes that are not live by the record.
async fn remove_strays(
    shared: &Arc<Shared>,
    waiting: &mut Waiting,
    boxes: HashMap<SandboxId, (Arc<dyn Provider>, BoxHandle)>,
) -> Result<(), ReconcileError> {
    waiting.strays.retain(|id, _| boxes.contains_key(id));
    for (id, (provider, handle)) in boxes {
        if shared.registry.is_creating(id)
            || shared.registry.get(id).is_some_and(|hosted| hosted.is_closing())
        {
            continue;
        }
        let record = shared.log.sandbox_record(id).await?;
        let ended = record.as_ref().is_some_and(|record| record.sandbox.is_terminal());
        let elsewhere = record
            .as_ref()
            .and_then(|record| record.sandbox.node())
            .is_some_and(|node| *node != shared.config.node);
        if let Some(record) = &record
            && matches!(record.sandbox.phase, SandboxPhase::Requested)
            && shared.registry.get(id).is_some()
        {
            // Its request was lost on the way and came after the news that it runs, which counted for nothing.
            runs(shared, &record.sandbox, &handle).await?;
            waiting.strays.remove(&id);
            continue;
        }
        let since = *waiting.strays.entry(id).or_insert_with(Instant::now);
        let ours = shared.registry.get(id).is_some();
        let grace = if ours { UNHEARD_GRACE } else { STRAY_GRACE };
        if !ended && !elsewhere && ((ours && record.is_some()) || since.elapsed() < grace) {
            continue;
        }
        match provider.destroy(id).await {
            Ok(()) => {
                tracing::info!(sandbox.id = %id, "removed a box that is not in the log");
                shared.registry.remove(id);
                waiting.strays.remove(&id);
            }
            Err(error) => {
                tracing::warn!(sandbox.id = %id, error = %ErrorChain(&error), "a stray box was not removed");
            }
        }
    }
    Ok(())
}
