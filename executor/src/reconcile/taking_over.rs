//! What is there and known: boxes, and the execs in them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agent::client::{CallError, Client};
use agent::protocol::AttachRefusal;
use events::{ExecId, ExecOutcomeUnknown, ExecState, FailureCode, SandboxPhase, SandboxState};
use secrets::Redaction;
use transport::SandboxRecord;

use super::{Look, ReconcileError, hold, runs, unknown};
use crate::context::Context;
use crate::exec::{Exec, Found, Resume, find_again};
use crate::hosted::Hosted;
use crate::provider::{BoxHandle, Provider};
use crate::shared::Shared;

/// How long an exec that was asked for may wait for its command. Commands wait in their queue, not on the way: after so
/// long with an executor that takes them, it is lost.
const PENDING_GRACE: Duration = Duration::from_secs(60);
/// How long an agent has for each thing that it is asked here.
const ASK: Duration = Duration::from_secs(5);

impl Look {
    /// A live sandbox whose box runs.
    pub(super) async fn take_over(
        &self,
        record: &SandboxRecord,
        provider: Arc<dyn Provider>,
        handle: &BoxHandle,
    ) -> Result<(), ReconcileError> {
        let (shared, state) = (&self.shared, &record.sandbox);
        let hosted = match shared.registry.get(state.id) {
            Some(hosted) => hosted,
            None => {
                let agent =
                    Client::with(handle.agent.clone()).sharing(shared.connections.of(state.tenant.as_str()));
                let names = &state.spec.secret_names;
                let Some(redaction) = masking(&agent, None, names, &shared.redaction).await else {
                    return Ok(());
                };
                let hosted =
                    Arc::new(Hosted::new(state.id, state.tenant.clone(), provider, agent, redaction));
                if !shared.registry.insert_found(&hosted, self.round) {
                    return Ok(());
                }
                tracing::info!(sandbox.id = %state.id, execs = record.live_execs.len(), "took a sandbox over");
                hosted
            }
        };
        hosted.may_live_until(state.deadline());
        if hosted.is_closing() {
            return Ok(());
        }
        // With commands to run first, its maker's command comes again and goes on with them.
        if matches!(state.phase, SandboxPhase::Starting { .. }) && state.spec.setup.is_empty() {
            // Its maker died between the box and the news of it.
            runs(shared, state, handle).await?;
        }
        if !self.is_reachable(&hosted, record).await? {
            return Ok(());
        }
        for exec in &record.live_execs {
            if exec.pending {
                self.expect(&hosted, state, exec).await?;
            } else {
                resume(shared, &hosted, state, exec).await?;
            }
        }
        Ok(())
    }

    /// An exec that was asked for: its command will come, or has been lost and will not.
    async fn expect(
        &self,
        hosted: &Arc<Hosted>,
        state: &SandboxState,
        exec: &ExecState,
    ) -> Result<(), ReconcileError> {
        let (shared, waiting) = (&self.shared, &self.waiting);
        let since = *hold(&waiting.pending).entry(exec.id).or_insert_with(Instant::now);
        if since.elapsed() < PENDING_GRACE || !hosted.execs.insert(exec.id) {
            return Ok(());
        }
        // From here on its command finds it taken, or given up.
        shared.registry.give_up(exec.id);
        let context = Context::of_sandbox(state, &shared.config.node, &shared.clock);
        // An agent that knows it has begun it, and the news of that was lost together with the command.
        let agent = hosted.agent.urgently().within(ASK);
        let known = agent.kill_exec(exec.id.as_bytes().to_owned().into(), Duration::ZERO).await.is_ok();
        let end = if known {
            let message = "the news of its start was lost; it was ended".to_owned();
            context.event(ExecOutcomeUnknown { exec: exec.id, message })
        } else {
            context.never_began(exec.id, FailureCode::CommandLost, "the command was lost on its way")
        };
        let told = shared.log.publish(&[end]).await;
        hosted.execs.remove(&exec.id);
        hold(&waiting.pending).remove(&exec.id);
        tracing::warn!(exec.id = %exec.id, "the command of a detached exec never came");
        Ok(told?)
    }
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
    match agent.within(ASK).secrets(exec_id, names.to_vec()).await {
        Ok(values) => Some(under.with_secrets(values)),
        // Nothing that it wrote is left.
        Err(CallError::Refused(_)) => Some(under.clone()),
        Err(error) => {
            tracing::warn!(error = %error, "an agent does not tell what must be masked");
            None
        }
    }
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
    let found = find_again(&hosted.agent.within(ASK), exec.id, recorded, redaction.lookbehind() as u64).await;
    match found {
        Ok(Found { connection, read, limit }) => {
            let pumped = Exec {
                id: exec.id,
                hosted: Arc::clone(hosted),
                context,
                log: shared.log.clone(),
                recorded: Arc::clone(&shared.recorded),
                max_output_bytes: shared.config.max_output_bytes.min(limit),
                shutdown: shared.shutdown.clone(),
            };
            let resume = Resume::Recorded { recorded, read, ended: exec.end.is_some() };
            hosted.pumps.spawn(pumped.pump(connection, resume));
            return Ok(());
        }
        Err(CallError::Refused(AttachRefusal::UnknownExec(_) | AttachRefusal::Released { .. })) => {}
        Err(error) => {
            tracing::debug!(exec.id = %exec.id, error = %error, "cannot attach yet");
            hosted.execs.remove(&exec.id);
            return Ok(());
        }
    }
    hosted.execs.remove(&exec.id);
    unknown(shared, state, exec, "the sandbox no longer knows of this command").await
}
