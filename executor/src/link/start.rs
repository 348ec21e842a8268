//! Starting an exec that somebody waits for: no command stands behind it, so that nothing has to be durable before it begins. What
//! is durable of it are its events. Who dies before the agent has it leaves nothing that begins later; who dies after that
//! leaves it to the agent, and so to the record.

use std::sync::Arc;
use std::time::Duration;

use transport::{FaultCode, LinkFault, LinkIncoming, LinkOp, LinkRequest, LinkValue};

use super::{gone, unrecordable};
use crate::commands::start_at_once;
use crate::context::Context;
use crate::shared::Shared;

/// How long somebody who may be gone has to say that he still waits.
const STILL_WANTED: Duration = Duration::from_secs(2);
/// A start that takes longer is told to be under way.
const SOON: Duration = Duration::from_millis(200);
/// How often that is said again.
const ALIVE: Duration = Duration::from_secs(1);

pub async fn exec(shared: &Arc<Shared>, mut incoming: LinkIncoming) {
    let request = incoming.request.clone();
    let LinkOp::StartExec { exec, sent_at, .. } = &request.op else { return };
    if shared.pulse.is_in_doubt(*sent_at, shared.clock.now()) && !incoming.still_wanted(STILL_WANTED).await {
        tracing::info!(exec.id = %exec, sandbox.id = %request.sandbox, "nobody waits for this exec any more: it is not started");
        return;
    }
    let started = start(shared, &request);
    tokio::pin!(started);
    let mut pause = SOON;
    let outcome = loop {
        tokio::select! {
            outcome = &mut started => break outcome,
            () = tokio::time::sleep(pause) => {
                // Whoever does not hear it gives up, and finds it in the record.
                let told = if pause == SOON { incoming.accept(LinkValue::Done).await } else { incoming.keep_alive().await };
                if let Err(error) = told {
                    tracing::debug!(error = %error, exec.id = %exec, "a start under way was not told");
                }
                pause = ALIVE;
            }
        }
    };
    incoming.answer(outcome.map(|()| LinkValue::Done)).await;
}

async fn start(shared: &Arc<Shared>, request: &LinkRequest) -> Result<(), LinkFault> {
    let LinkOp::StartExec { command, exec, spec, env, .. } = &request.op else { return Ok(()) };
    shared.joined.cancelled().await;
    let hosted = match shared.registry.get(request.sandbox) {
        Some(hosted) if hosted.tenant == request.tenant && !hosted.is_closing() => hosted,
        _ => return Err(gone()),
    };
    if shared.log.refusal().is_some() {
        return Err(unrecordable());
    }
    let context = Context::of_link(request, &hosted.redaction, &shared.clock).because_of(*command);
    start_at_once(shared, &context, *exec, spec, env).await.map_err(|_| {
        let message = "the sandbox did not answer, and nothing can be recorded: look later under its id whether the command ran";
        LinkFault::new(FaultCode::Unavailable, message)
    })
}
