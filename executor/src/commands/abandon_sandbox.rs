use std::time::Duration;

use events::{ErrorChain, FailureCode, SandboxFailed, SandboxPhase};

use super::{Outcome, tell};
use crate::context::Context;
use crate::shared::Shared;

/// How often a request is looked for that the record does not know: it was in the record of whoever sent this.
const ATTEMPTS: i64 = 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Only of what is as it was asked for: whoever sent this may have been behind.
pub(super) async fn run(shared: &Shared, context: &Context, message: &str, attempt: i64) -> Outcome {
    let id = context.sandbox;
    if shared.registry.get(id).is_some() || shared.registry.is_creating(id) {
        return Outcome::Done;
    }
    let record = match shared.log.sandbox_record(id).await {
        Ok(Some(record)) => record,
        Ok(None) if attempt >= ATTEMPTS => return Outcome::Done,
        Ok(None) => return Outcome::Retry(PAUSE),
        Err(error) => {
            tracing::debug!(sandbox.id = %id, error = %ErrorChain(&error), "the record does not answer");
            return Outcome::Retry(PAUSE);
        }
    };
    if record.sandbox.tenant != context.tenant || record.sandbox.phase != SandboxPhase::Requested {
        return Outcome::Done;
    }
    tracing::warn!(sandbox.id = %id, "the command that makes a sandbox was lost");
    let failed = SandboxFailed { code: FailureCode::CommandLost, message: message.to_owned() };
    match tell(shared, &[context.event_once("abandoned", failed)]).await {
        Ok(()) => Outcome::Done,
        Err(outcome) => outcome,
    }
}
