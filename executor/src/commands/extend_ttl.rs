use std::time::Duration;

use chrono::{DateTime, Utc};
use events::SandboxTtlExtended;

use super::create_sandbox::GRACE;
use super::{Outcome, tell};
use crate::context::Context;
use crate::shared::Shared;

/// The agent first, the log after: a deadline that the log has and the agent has not would end the sandbox early.
pub(super) async fn run(shared: &Shared, context: &Context, expires_at: DateTime<Utc>) -> Outcome {
    let Some(hosted) = shared.registry.get(context.sandbox) else {
        return Outcome::Done;
    };
    let remaining = (expires_at - shared.clock.now()).to_std().unwrap_or_default();
    if remaining.is_zero() {
        return Outcome::Done;
    }
    if let Err(error) = hosted.agent.urgently().set_deadline(remaining + GRACE).await {
        tracing::warn!(sandbox.id = %context.sandbox, error = %error, "the deadline was not moved");
        return if hosted.is_closing() { Outcome::Done } else { Outcome::Retry(Duration::from_secs(1)) };
    }
    hosted.may_live_until(expires_at);
    match tell(shared, &[context.event_once("extended", SandboxTtlExtended { expires_at })]).await {
        Ok(()) => Outcome::Done,
        Err(outcome) => outcome,
    }
}
