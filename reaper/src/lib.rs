//! Ends what has outlived its time.
//!
//! The reaper is a reconciler: it reads the fold of live sandboxes, has no state of its own, and asks executors to
//! destroy what is past its deadline. It destroys nothing itself; of a sandbox that no executor ever took, of which nothing
//! exists but the request, it says that it never ran. Any number of reapers may run: the command's id follows
//! from the sandbox, its deadline and how long that has passed, so JetStream keeps one of many.
//!
//! What time is left is measured on the boot clock from when a deadline was first seen: a clock that is set ends nothing.
//!
//! It also looks after requests that nobody takes: whoever recorded one may have died before its command was sent. The same
//! command is sent again, once; if the first was sent, JetStream drops it.
//!
//! With no reaper at all sandboxes still end: their agents know the deadline. The reaper is what makes the log say so.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use events::{
    Actor, Clock, Command, CommandEnvelope, CommandId, Event, EventId, FailureCode, SandboxFailed, SandboxId,
    SandboxPhase, SandboxState, SecretMap,
};
use feed::View;
use tokio_util::sync::CancellationToken;
use transport::{Destination, Log};

/// How often the deadlines are looked at.
const PERIOD: Duration = Duration::from_millis(500);
/// When a sandbox is still there after this long, it is asked for again, under another id: a transport that lost the first
/// command to a full disk may still take the same one for a duplicate.
const AGAIN_AFTER: Duration = Duration::from_secs(5);

/// How long after it was seen a request is sent once more that no executor has taken.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How long JetStream surely knows the first command, if there was one. After that only what does no harm twice is sent.
const KNOWN_FOR: TimeDelta = TimeDelta::seconds(90);
/// How many are sent between two looks at the deadlines.
const MOST_AT_ONCE: usize = 50;

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
        let mut deadlines = Deadlines::default();
        let mut requests = Requests::default();
        loop {
            let live = self.view.live_sandboxes();
            for command in deadlines.due(&live, &*self.clock) {
                self.ask(&command).await;
            }
            for state in requests.waiting(&live, &*self.clock).into_iter().take(MOST_AT_ONCE) {
                if self.send_again(&state).await {
                    requests.sent(state.id);
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    /// Sends the command of a request once more, in case it was never sent.
    async fn send_again(&self, state: &SandboxState) -> bool {
        let Some(command) = again(state, self.clock.now()) else { return true };
        match self.log.send(Destination::Pool(&state.spec.pool()), &command).await {
            Ok(()) => true,
            Err(error) => {
                tracing::debug!(error = %error, sandbox.id = %state.id, "cannot send a request again; trying again");
                false
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
        let pool = state.spec.pool();
        let destination = match state.node() {
            Some(node) => Destination::Node(node),
            // It had no node when this was asked, and has ended since.
            None => Destination::Pool(&pool),
        };
        if let Err(error) = self.log.send(destination, command).await {
            tracing::warn!(error = %error, sandbox.id = %command.sandbox, "cannot ask for an end; trying again");
        }
    }
}

/// Requests that no executor has taken, and since when, on the boot clock; `None`: they have been sent again.
#[derive(Default)]
struct Requests(HashMap<SandboxId, Option<Duration>>);

impl Requests {
    /// Those that have waited for so long that their command may be lost.
    fn waiting(&mut self, live: &[Arc<SandboxState>], clock: &dyn Clock) -> Vec<Arc<SandboxState>> {
        let before = std::mem::take(&mut self.0);
        let now = clock.since_boot();
        let mut waiting = Vec::new();
        for state in live {
            if !matches!(state.phase, SandboxPhase::Requested) || state.ending.is_some() {
                continue;
            }
            let since = before.get(&state.id).copied().unwrap_or(Some(now));
            if since.is_some_and(|since| now.saturating_sub(since) >= LOST_AFTER) {
                waiting.push(Arc::clone(state));
            }
            self.0.insert(state.id, since);
        }
        waiting
    }

    fn sent(&mut self, id: SandboxId) {
        self.0.insert(id, None);
    }
}

/// The command of a request, from what the log has of it; `None` where nothing can be said any more.
fn again(state: &SandboxState, now: DateTime<Utc>) -> Option<CommandEnvelope> {
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
    Some(CommandEnvelope {
        id: CommandId::of_create(state.id),
        tenant: state.tenant.clone(),
        actor: Actor::Reaper,
        request_id: None,
        traceparent: None,
        sandbox: state.id,
        command,
    })
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

/// The deadlines that were seen, on the boot clock.
#[derive(Default)]
struct Deadlines(HashMap<SandboxId, Deadline>);

struct Deadline {
    /// As the log says it.
    said: DateTime<Utc>,
    /// When that is.
    since_boot: Duration,
}

impl Deadlines {
    /// The commands that end those of these sandboxes whose time is up.
    fn due(&mut self, live: &[Arc<SandboxState>], clock: &dyn Clock) -> Vec<CommandEnvelope> {
        let mut before = std::mem::take(&mut self.0);
        let mut commands = Vec::new();
        for state in live.iter().filter(|state| !state.is_terminal()) {
            let said = state.deadline();
            let known = before.remove(&state.id).filter(|known| known.said == said);
            let deadline = known.unwrap_or_else(|| Deadline::seen(said, clock));
            if let Some(overdue) = clock.since_boot().checked_sub(deadline.since_boot) {
                commands.push(end(state, overdue));
            }
            self.0.insert(state.id, deadline);
        }
        commands
    }
}

impl Deadline {
    fn seen(said: DateTime<Utc>, clock: &dyn Clock) -> Self {
        let (now, boot) = (clock.now(), clock.since_boot());
        let since_boot = match (said - now).to_std() {
            Ok(left) => boot.saturating_add(left),
            Err(_) => boot.saturating_sub((now - said).to_std().unwrap_or_default()),
        };
        Self { said, since_boot }
    }
}

/// The command that ends a sandbox whose time has been up for so long.
fn end(state: &SandboxState, overdue: Duration) -> CommandEnvelope {
    let reason = state.expiry_reason();
    let round = overdue.as_secs() / AGAIN_AFTER.as_secs();
    let deadline = state.deadline().timestamp_micros();
    CommandEnvelope {
        id: CommandId::derived(&["reap", &state.id.to_string(), &deadline.to_string(), &round.to_string()]),
        tenant: state.tenant.clone(),
        actor: Actor::Reaper,
        request_id: None,
        traceparent: None,
        sandbox: state.id,
        command: Command::DestroySandbox { reason },
    }
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
