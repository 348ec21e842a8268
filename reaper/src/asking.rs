//! What is asked for, and how it is said.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use events::{
    Actor, Command, CommandEnvelope, CommandId, Event, EventId, FailureCode, SandboxFailed, SandboxState,
    SecretMap,
};

/// When a sandbox is still there after this long, it is asked for again, under another id: a transport that lost the first
/// command to a full disk may still take the same one for a duplicate.
pub const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long JetStream surely knows the first command, if there was one. After that only what does no harm twice is sent.
const KNOWN_FOR: TimeDelta = TimeDelta::seconds(90);

/// How often a sandbox whose time has been up for so long was to be asked for before.
pub const fn round(overdue: Duration) -> u64 {
    overdue.as_secs() / AGAIN_AFTER.as_secs()
}

/// The command of a request, from what the log has of it; `None` where nothing can be said any more.
pub fn again(state: &SandboxState, now: DateTime<Utc>) -> Option<CommandEnvelope> {
    let command = if is_whole(state) {
        Command::CreateSandbox {
            spec: state.spec.clone(),
            env: SecretMap::default(),
            expires_at: state.expires_at,
            term: state.term,
        }
    } else if (now - state.requested_at).abs() < KNOWN_FOR {
        let message = "the request was lost on its way, with values that are kept nowhere: ask again";
        Command::AbandonSandbox { message: message.to_owned() }
    } else {
        // It may be waiting for room.
        return None;
    };
    Some(envelope(state, CommandId::of_create(state.id), command))
}

/// Whether the log has all that is needed to make it: no values of variables, and nothing in which they are masked.
fn is_whole(state: &SandboxState) -> bool {
    let spec = &state.spec;
    let mut texts = spec.setup.iter().chain(spec.metadata.values());
    spec.env_names.is_empty()
        && spec.env_hmac.is_empty()
        && spec.secret_names.is_empty()
        && !texts.any(|text| text.contains('*'))
}

/// The command that ends a sandbox whose time is up, when it is asked for the `round`th time.
pub fn end(state: &SandboxState, round: u64) -> CommandEnvelope {
    let deadline = state.deadline().timestamp_micros();
    let id = CommandId::derived(&["reap", &state.id.to_string(), &deadline.to_string(), &round.to_string()]);
    envelope(state, id, Command::DestroySandbox { reason: state.expiry_reason() })
}

fn envelope(state: &SandboxState, id: CommandId, command: Command) -> CommandEnvelope {
    CommandEnvelope {
        id,
        tenant: state.tenant.clone(),
        actor: Actor::Reaper,
        request_id: None,
        traceparent: None,
        sandbox: state.id,
        command,
    }
}

/// The end of a sandbox that no executor took in time. Its id follows from the sandbox, so that it is told once.
pub fn never_ran(state: &SandboxState, now: DateTime<Utc>) -> Event {
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
