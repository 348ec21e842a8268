use std::sync::Arc;
use std::time::Duration;

use events::{DestroyReason, ErrorChain, FailureCode, SandboxDestroyed, SandboxDestroying};

use super::{Outcome, tell};
use crate::context::Context;
use crate::hosted::{Closing, Hosted};
use crate::shared::Shared;

/// How long an agent has to agree to an end. Without its word the box goes all the same.
const ASK: Duration = Duration::from_secs(1);
/// How long execs get to tell their end.
const LAST_WORDS: Duration = Duration::from_secs(3);

pub(super) async fn run(shared: &Arc<Shared>, context: &Context, reason: DestroyReason) -> Outcome {
    match destroy(shared, context, reason).await {
        Ok(()) => Outcome::Done,
        Err(outcome) => outcome,
    }
}

/// The log hears that it begins: whoever finds the box gone after a crash knows why. Then the execs end, then the box goes,
/// then the log says so.
pub(crate) async fn destroy(
    shared: &Arc<Shared>,
    context: &Context,
    reason: DestroyReason,
) -> Result<(), Outcome> {
    let id = context.sandbox;
    let hosted = shared.registry.get(id).filter(|hosted| hosted.tenant == context.tenant);
    let closing = hosted.as_ref().map(Hosted::close);
    if matches!(closing, Some(None)) {
        // Somebody else is at it; this command comes again and finds it gone.
        return Err(Outcome::Retry(Duration::from_secs(2)));
    }
    hosted.iter().for_each(|hosted| hosted.note_end(&context.actor));
    tell(shared, &[context.event_once("destroying", SandboxDestroying { reason })]).await?;
    if let Some(hosted) = hosted.as_ref().filter(|hosted| !hosted.execs.is_empty()) {
        end_execs(hosted).await;
    }
    let providers = match &hosted {
        Some(hosted) => vec![Arc::clone(&hosted.provider)],
        // Not ours as far as we know: a box that an earlier life left behind may be anybody's.
        None => shared.providers.iter().map(|it| Arc::clone(&it.provider)).collect(),
    };
    let turn = shared.boxes.removal(&context.tenant).await;
    for provider in providers {
        if let Err(error) = provider.destroy(id).await {
            tracing::warn!(sandbox.id = %id, error = %ErrorChain(&error), "a box was not removed");
            return Err(Outcome::Retry(Duration::from_secs(2)));
        }
    }
    drop(turn);
    if let Some(hosted) = &hosted {
        hosted.set_gone();
        hosted.pumps.close();
        if tokio::time::timeout(LAST_WORDS, hosted.pumps.wait()).await.is_err() {
            tracing::warn!(sandbox.id = %id, "an exec did not tell its end in time");
        }
    }
    end_pending(shared, context).await?;
    tell(shared, &[context.event_once("destroyed", SandboxDestroyed { reason })]).await?;
    shared.registry.remove(id);
    closing.flatten().into_iter().for_each(Closing::over);
    Ok(())
}

/// Tells the end of execs that were asked for and will not begin (a command that still comes finds the sandbox gone), and of output
/// that is open by the record. If its close is on its way there already, the record drops this one.
async fn end_pending(shared: &Shared, context: &Context) -> Result<(), Outcome> {
    let record = match shared.log.sandbox_record(context.sandbox).await {
        Ok(record) => record,
        Err(error) => {
            // A destroy does not wait for a recorder: their commands are on their way as a rule, and fail.
            tracing::debug!(error = %error, "cannot ask for pending execs");
            return Ok(());
        }
    };
    let live = record.into_iter().filter(|record| record.sandbox.tenant == context.tenant);
    for exec in live.flat_map(|record| record.live_execs) {
        if exec.output_open {
            tell(shared, &[context.output_gone(&exec)]).await?;
        }
        if !exec.pending {
            continue;
        }
        let message = "the sandbox was destroyed before the command began";
        tell(shared, &[context.never_began(exec.id, FailureCode::SandboxGone, message)]).await?;
    }
    Ok(())
}

/// Ends all execs through the agent, so that their last output and their end are in the log before the box goes.
async fn end_execs(hosted: &Hosted) {
    if hosted.agent.urgently().within(ASK).shutdown(Duration::ZERO).await.is_ok() {
        let told = async {
            while !hosted.execs.is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::select! {
            _ = tokio::time::timeout(LAST_WORDS, told) => {}
            () = hosted.gone() => {}
        }
    }
}
