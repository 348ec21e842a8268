//! Agents that do not answer.

use std::time::{Duration, Instant};

use agent::client::CallError;
use events::{DestroyReason, ErrorChain};
use transport::SandboxRecord;

use super::{Look, ReconcileError};
use crate::commands::destroy;
use crate::context::Context;
use crate::hosted::Hosted;

/// How often an agent that nobody asks for anything is asked whether it is there.
const ASK_EVERY: Duration = Duration::from_secs(30);
/// How long it has to say so.
const ANSWER: Duration = Duration::from_secs(5);
/// How long an agent may say nothing. A sandbox that has used up its share of the processors may leave it without one for a
/// while.
const LONGEST_SILENCE: Duration = Duration::from_secs(120);
/// How long there may be nobody to be connected to, or somebody else. That does not pass.
const LONGEST_ABSENCE: Duration = Duration::from_secs(10);

/// An agent as it was when it was last asked.
pub(super) enum Silence {
    Answered {
        at: Instant,
    },
    /// It has not answered since.
    Silent {
        since: Instant,
    },
}

impl Look {
    /// Whether its agent answers. Where it has not for too long, the sandbox ends, with the reason: nobody can do anything
    /// with it any more.
    pub(super) async fn is_reachable(
        &self,
        hosted: &Hosted,
        record: &SandboxRecord,
    ) -> Result<bool, ReconcileError> {
        let silent = &self.waiting.silent;
        let resumes = record.live_execs.iter().any(|exec| !exec.pending && !hosted.execs.contains(&exec.id));
        let since = match silent.get(&self.id).as_deref() {
            Some(Silence::Answered { at }) if !resumes && at.elapsed() < ASK_EVERY => return Ok(true),
            Some(Silence::Silent { since }) => Some(*since),
            Some(Silence::Answered { .. }) | None => None,
        };
        let Err(error) = hosted.agent.urgently().within(ANSWER).ping().await else {
            silent.insert(self.id, Silence::Answered { at: Instant::now() });
            return Ok(true);
        };
        if matches!(error, CallError::Full { .. }) {
            // It was not asked: that says nothing of it.
            return Ok(false);
        }
        let Some(since) = since else {
            silent.insert(self.id, Silence::Silent { since: Instant::now() });
            tracing::info!(sandbox.id = %self.id, error = %ErrorChain(&error), "an agent does not answer");
            return Ok(false);
        };
        let longest = match &error {
            CallError::Silent { .. } | CallError::Crowded { .. } | CallError::Full { .. } => LONGEST_SILENCE,
            CallError::Transport { .. }
            | CallError::Refused(_)
            | CallError::InvalidCall { .. }
            | CallError::Violation { .. }
            | CallError::Version { .. }
            | CallError::Unsupported { .. } => LONGEST_ABSENCE,
        };
        if since.elapsed() >= longest && !hosted.is_closing() {
            tracing::warn!(sandbox.id = %self.id, error = %ErrorChain(&error), "an agent is lost: its sandbox ends");
            let context = Context::of_sandbox(&record.sandbox, &self.shared.config.node, &self.shared.clock);
            // What is not done now is done in the next round.
            let _ = destroy(&self.shared, &context, DestroyReason::AgentLost).await;
        }
        Ok(false)
    }
}
