//! Ends what has outlived its time.
//!
//! The reaper is a reconciler: it reads the fold of live sandboxes, has no state of its own, and asks executors to
//! destroy what is past its deadline. It destroys nothing itself; of a sandbox that no executor ever took, of which nothing
//! exists but the request, it says that it never ran. Any number of reapers may run: the command's id follows
//! from the sandbox, its deadline and how long that has passed, so JetStream keeps one of many.
//!
//! With no reaper at all sandboxes still end: their agents know the deadline. The reaper is what makes the log say so.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{
    Actor, Clock, Command, CommandEnvelope, CommandId, Destination, Event, EventId, FailureCode, Log,
    SandboxFailed, SandboxPhase, SandboxState, View,
};
use tokio_util::sync::CancellationToken;

/// How often the deadlines are looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// When a sandbox is still there after this long, it is asked for again.
const AGAIN_AFTER_SECONDS: i64 = 30;

/// Looks at deadlines until it is told to stop.
pub struct Reaper {
    log: Log,
    view: View,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

impl Reaper {
    /// A reaper over this view. It does nothing until it runs.
    pub fn new(log: Log, view: View, clock: Arc<dyn Clock>, stop: CancellationToken) -> Self {
        Self { log, view, clock, stop }
    }

    /// Works until it is told to stop.
    pub async fn run(self) {
        loop {
            let now = self.clock.now();
            let due: Vec<CommandEnvelope> =
                self.view.live_sandboxes().iter().filter_map(|state| due(state, now)).collect();
            for command in due {
                self.ask(&command).await;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    async fn ask(&self, command: &CommandEnvelope) {
        let Some(state) = self.view.sandbox(command.sandbox) else {
            return;
        };
        if matches!(state.phase, SandboxPhase::Requested) {
            // Nobody has it, so nobody can be asked to end it, and a full pool would not even hear. An executor that
            // takes it all the same finds that it has ended.
            if let Err(error) = self.log.publish(&[never_ran(&state, self.clock.now())]).await {
                tracing::warn!(error = %error, sandbox.id = %state.id, "cannot say that it never ran; trying again");
            }
            return;
        }
        let destination = match state.node() {
            Some(node) => Destination::Node(node),
            // It had no node when this was asked, and has ended since.
            None => Destination::Pool(&state.spec.provider),
        };
        if let Err(error) = self.log.send(destination, command).await {
            tracing::warn!(error = %error, sandbox.id = %command.sandbox, "cannot ask for an end; trying again");
        }
    }
}

/// The command that ends a sandbox, if its time is up.
fn due(state: &SandboxState, now: DateTime<Utc>) -> Option<CommandEnvelope> {
    if state.is_terminal() || !state.is_expired(now) {
        return None;
    }
    let reason = state.expiry_reason();
    let round = (now - state.expires_at).num_seconds() / AGAIN_AFTER_SECONDS;
    let deadline = state.expires_at.timestamp_micros();
    Some(CommandEnvelope {
        id: CommandId::derived(&["reap", &state.id.to_string(), &deadline.to_string(), &round.to_string()]),
        tenant: state.tenant.clone(),
        actor: Actor::Reaper,
        request_id: None,
        traceparent: None,
        sandbox: state.id,
        command: Command::DestroySandbox { reason },
    })
}

/// The end of a sandbox that no executor took in time. Its id follows from the sandbox, so that it is told once.
fn never_ran(state: &SandboxState, now: DateTime<Utc>) -> Event {
    Event {
        id: EventId::derived(&["never-ran", &state.id.to_string()]),
        tenant: state.tenant.clone(),
        sandbox: Some(state.id),
        time: now,
        actor: Actor::Reaper,
        cause: None,
        request_id: None,
        traceparent: None,
        data: match state.term {
            Some(term) => SandboxFailed {
                code: FailureCode::QueueTimeout,
                message: format!(
                    "no executor had room for the sandbox until {}",
                    term.start_by.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
                ),
            },
            None => SandboxFailed {
                code: FailureCode::DeadlinePassed,
                message: "the deadline passed before an executor had room for the sandbox".to_owned(),
            },
        }
        .into(),
    }
}

#[cfg(test)]
mod tests;
