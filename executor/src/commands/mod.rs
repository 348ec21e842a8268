//! One file a command. Every effect is idempotent by id, because redelivery is normal.

mod abandon_sandbox;
mod create_sandbox;
mod destroy_sandbox;
mod extend_ttl;
mod setup;
mod start_exec;

use std::sync::Arc;
use std::time::Duration;

use events::Command;
use transport::Delivery;

use crate::context::Context;
use crate::shared::Shared;

pub(crate) use destroy_sandbox::destroy;
pub(crate) use start_exec::start_at_once;

/// How often a command that takes long shows that it is being worked on.
const PROGRESS: Duration = Duration::from_millis(500);

/// What becomes of a command.
pub(crate) enum Outcome {
    /// Its effect is durable, or it can have none.
    Done,
    /// Deliver it again later.
    Retry(Duration),
}

/// Carries out one command and acknowledges it.
pub async fn carry_out(shared: Arc<Shared>, delivery: Delivery) {
    let envelope = &delivery.envelope;
    let context = Context::of_command(envelope, &shared.redaction, &shared.clock);
    tracing::debug!(sandbox.id = %envelope.sandbox, command.verb = envelope.command.verb(), command.id = %envelope.id, delivery.attempt, "command");
    let work = async {
        match &envelope.command {
            Command::CreateSandbox { spec, env, expires_at, term } => {
                let order = create_sandbox::Order { spec, env, expires_at: *expires_at, term: *term };
                create_sandbox::run(&shared, &context, order, delivery.attempt).await
            }
            Command::StartExec { exec, spec, env } => {
                start_exec::run(&shared, &context, *exec, spec, env, delivery.attempt).await
            }
            Command::ExtendTtl { expires_at } => extend_ttl::run(&shared, &context, *expires_at).await,
            Command::DestroySandbox { reason } => destroy_sandbox::run(&shared, &context, *reason).await,
            Command::AbandonSandbox { message } => {
                abandon_sandbox::run(&shared, &context, message, delivery.attempt).await
            }
        }
    };
    tokio::pin!(work);
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome,
            () = tokio::time::sleep(PROGRESS) => delivery.progress().await,
        }
    };
    match outcome {
        Outcome::Done => delivery.ack().await,
        Outcome::Retry(delay) => delivery.retry(delay).await,
    }
}

/// Publishes what must not be lost; when that fails the command is delivered again and tells it again.
async fn tell(shared: &Shared, events: &[events::Event]) -> Result<(), Outcome> {
    shared.log.publish(events).await.map_err(|error| {
        tracing::warn!(error = %error, "an event was not published; the command will come again");
        Outcome::Retry(Duration::from_secs(1))
    })
}
