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
pub(super) const LONGEST_SILENCE: Duration = Duration::from_secs(120);
/// How long there may be nobody to be connected to, or somebody else. That does not pass.
pub(super) const LONGEST_ABSENCE: Duration = Duration::from_secs(10);

/// An agent as it was when it was last asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    Answered {
        at: Instant,
    },
    /// It has not answered since, and for some of that there may have been nobody at all.
    Silent {
        since: Instant,
        absent_since: Option<Instant>,
    },
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Answer,
    /// Somebody is there and says nothing.
    Nothing,
    /// There is nobody, or somebody else.
    Nobody,
    /// It was not asked: that says nothing of it.
    NotAsked,
}

/// What follows from that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Reachable,
    Wait,
    Lost,
}

impl Silence {
    pub(super) fn after(before: Option<Self>, heard: Heard, now: Instant) -> (Option<Self>, Verdict) {
        let (silent, absent) = match before {
            Some(Self::Silent { since, absent_since }) => (since, absent_since),
            Some(Self::Answered { .. }) | None => (now, None),
        };
        // Absence is counted by itself: one refused connection after a long silence is no long absence.
        let absent_since = match heard {
            Heard::Answer => return (Some(Self::Answered { at: now }), Verdict::Reachable),
            Heard::NotAsked => return (before, Verdict::Wait),
            Heard::Nothing => None,
            Heard::Nobody => Some(absent.unwrap_or(now)),
        };
        let is_lost = now - silent >= LONGEST_SILENCE
            || absent_since.is_some_and(|since| now - since >= LONGEST_ABSENCE);
        let verdict = if is_lost { Verdict::Lost } else { Verdict::Wait };
        (Some(Self::Silent { since: silent, absent_since }), verdict)
    }
}

impl Heard {
    fn of<E>(answer: &Result<(), CallError<E>>) -> Self {
        match answer {
            Ok(()) => Self::Answer,
            Err(CallError::Full { .. }) => Self::NotAsked,
            Err(CallError::Silent { .. } | CallError::Crowded { .. }) => Self::Nothing,
            Err(
                CallError::Transport { .. }
                | CallError::Refused(_)
                | CallError::InvalidCall { .. }
                | CallError::Violation { .. }
                | CallError::Version { .. }
                | CallError::Unsupported { .. },
            ) => Self::Nobody,
        }
    }
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
        let before = silent.get(&self.id).as_deref().copied();
        if let Some(Silence::Answered { at }) = before
            && !resumes
            && at.elapsed() < ASK_EVERY
        {
            return Ok(true);
        }
        let answer = hosted.agent.urgently().within(ANSWER).ping().await;
        let (after, verdict) = Silence::after(before, Heard::of(&answer), Instant::now());
        if let Some(after) = after {
            silent.insert(self.id, after);
        }
        let Err(error) = answer else { return Ok(true) };
        match verdict {
            Verdict::Reachable => return Ok(true),
            Verdict::Wait => {
                let begins = matches!(after, Some(Silence::Silent { .. }))
                    && !matches!(before, Some(Silence::Silent { .. }));
                if begins {
                    tracing::info!(sandbox.id = %self.id, error = %ErrorChain(&error), "an agent does not answer");
                }
            }
            Verdict::Lost if hosted.is_closing() => {}
            Verdict::Lost => {
                tracing::warn!(sandbox.id = %self.id, error = %ErrorChain(&error), "an agent is lost: its sandbox ends");
                let context =
                    Context::of_sandbox(&record.sandbox, &self.shared.config.node, &self.shared.clock);
                // What is not done now is done in the next round.
                let _ = destroy(&self.shared, &context, DestroyReason::AgentLost).await;
            }
        }
        Ok(false)
    }
}
