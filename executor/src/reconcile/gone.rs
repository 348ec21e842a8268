//! What the log says and is not there.

use std::sync::Arc;
use std::time::Duration;

use events::{Actor, DestroyReason, ErrorChain, FailureCode, SandboxDestroyed, SandboxPhase, SandboxState};
use transport::SandboxRecord;

use super::{Found, ReconcileError, unknown};
use crate::context::Context;
use crate::hosted::{Closing, Hosted};
use crate::shared::Shared;

/// How long what was published just now may take to the record.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// A live sandbox without a running box.
pub(super) async fn gone(
    shared: &Arc<Shared>,
    record: &SandboxRecord,
    remains: Option<Found>,
) -> Result<(), ReconcileError> {
    let state = &record.sandbox;
    // Agents count on a clock of their own, and may be a moment ahead of the log's.
    let expired = state.is_expired(shared.clock.now() + chrono::TimeDelta::seconds(2));
    if matches!(state.phase, SandboxPhase::Starting { .. }) && !expired {
        // Its command is not acknowledged and comes again.
        return Ok(());
    }
    let hosted = shared.registry.get(state.id);
    let closing = hosted.as_ref().map(Hosted::close);
    if matches!(closing, Some(None)) {
        return Ok(());
    }
    if let Some((provider, handle)) = remains
        && let Err(error) = provider.destroy(handle.id).await
    {
        tracing::warn!(sandbox.id = %state.id, error = %ErrorChain(&error), "remains were not removed");
        return Ok(());
    }
    if let Some(hosted) = &hosted {
        hosted.set_gone();
        // Pumps have the last word on their execs.
        hosted.pumps.close();
        let _ = tokio::time::timeout(Duration::from_secs(3), hosted.pumps.wait()).await;
    }
    let context = Context::of_sandbox(state, &shared.config.node, &shared.clock);
    for exec in &record.live_execs {
        if exec.pending {
            let message = "the sandbox went away before the command began";
            let event = context.never_began(exec.id, FailureCode::SandboxGone, message);
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
    closing.flatten().into_iter().for_each(Closing::over);
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
