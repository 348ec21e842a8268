//! One sandbox, and what was asked for it. A pure decision: what is to be done follows from the state and the time.

use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{CommandEnvelope, Event, NodeId, PoolName, SandboxPhase, SandboxState};
use reactor::{Next, Turn};

use crate::asking::{AGAIN_AFTER, again, end, never_ran, round};

/// How long after it was seen a request is sent once more that no executor has taken.
pub const LOST_AFTER: Duration = Duration::from_secs(5);

/// Something to ask for.
#[derive(Debug, Clone, PartialEq)]
pub enum Ask {
    /// Its time is up: whoever has it is to end it.
    End(Box<CommandEnvelope>, Addressee, Asked),
    /// Its time is up, and nobody has it: it is said that it never ran.
    NeverRan(Box<Event>, Asked),
    /// The command of its request, once more.
    Again(Box<CommandEnvelope>, PoolName),
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Addressee {
    /// The executor that has it.
    Node(NodeId),
    /// Any executor of the pool: it had no node when this was asked, and has ended since.
    Pool(PoolName),
}

/// For which deadline, and how often before, it was asked for an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    deadline: DateTime<Utc>,
    round: u64,
}

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// Its end.
    End(Asked),
    /// Its command, once more.
    Again,
}

/// One sandbox, and what was asked for it.
#[derive(Debug)]
pub struct Watched {
    state: SandboxState,
    /// When the request was first seen, on the boot clock.
    seen_at: Option<Duration>,
    /// Its command has been sent once more, or there is nothing that could be sent.
    sent_again: bool,
    asked: Option<Asked>,
}

impl Watched {
    pub const fn new(state: SandboxState) -> Self {
        Self { state, seen_at: None, sent_again: false, asked: None }
    }

    pub const fn state(&self) -> &SandboxState {
        &self.state
    }

    /// Takes in an event of it. `None`: nothing is left to be done.
    pub fn apply(self, event: &Event) -> Option<Self> {
        let state = SandboxState::apply(Some(self.state), event)?;
        (!state.is_terminal()).then_some(Self { state, ..self })
    }

    /// What is to be asked for now.
    pub fn decide(&mut self, turn: &mut Turn<'_>) -> Next<Ask> {
        let deadline = self.state.deadline();
        if let Some(overdue) = turn.passed(deadline) {
            let asked = Asked { deadline, round: round(overdue) };
            if self.asked.is_some_and(|before| before.deadline == deadline && before.round >= asked.round) {
                let next = AGAIN_AFTER.saturating_mul(u32::try_from(asked.round + 1).unwrap_or(u32::MAX));
                return Next::Wait(next.saturating_sub(overdue));
            }
            return Next::Act(self.end(asked, turn));
        }
        let left = turn.left(deadline);
        let is_waiting = matches!(self.state.phase, SandboxPhase::Requested) && self.state.ending.is_none();
        if !is_waiting || self.sent_again {
            return Next::Wait(left);
        }
        let seen_at = *self.seen_at.get_or_insert(turn.since_boot());
        let waited = turn.since_boot().saturating_sub(seen_at);
        if waited < LOST_AFTER {
            return Next::Wait(left.min(LOST_AFTER.saturating_sub(waited)));
        }
        match again(&self.state, turn.now()) {
            Some(command) => Next::Act(Ask::Again(Box::new(command), self.state.spec.pool())),
            None => {
                self.sent_again = true;
                Next::Wait(left)
            }
        }
    }

    fn end(&self, asked: Asked, turn: &Turn<'_>) -> Ask {
        if matches!(self.state.phase, SandboxPhase::Requested) {
            // Nobody has it, so nobody can be asked to end it, and a full pool would not even hear. An executor that
            // takes it all the same finds that it has ended.
            return Ask::NeverRan(Box::new(never_ran(&self.state, turn.now())), asked);
        }
        let addressee = match self.state.node() {
            Some(node) => Addressee::Node(node.clone()),
            None => Addressee::Pool(self.state.spec.pool()),
        };
        Ask::End(Box::new(end(&self.state, asked.round)), addressee, asked)
    }

    /// Notes that it was asked for.
    pub fn done(&mut self, done: Done) {
        match done {
            Done::End(asked) => self.asked = Some(asked),
            Done::Again => self.sent_again = true,
        }
    }
}
