use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Actor, Aggregate, Category, DestroyReason, DropReason, Event, EventData, FailureCode, Fields, FoundBy,
    Key, NodeId, SandboxEvent, SandboxId, SandboxSpec, TenantId, Term,
};

/// What the log says about one sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxState {
    /// Its id.
    pub id: SandboxId,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// What was asked for.
    pub spec: SandboxSpec,
    /// When it was asked for.
    pub requested_at: DateTime<Utc>,
    /// Its deadline.
    pub expires_at: DateTime<Utc>,
    /// The time past which no extension moves the deadline.
    pub lifetime_ends_at: DateTime<Utc>,
    /// How long it may wait and live; nothing of one from before that was told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
    /// That its end was asked for and has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// Where it stands.
    pub phase: SandboxPhase,
    /// Its address on the provider's bridge, once it runs, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// An end that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// The reason.
    pub reason: DestroyReason,
    /// Who asked.
    pub by: Actor,
    /// Since when this has been so.
    pub since: DateTime<Utc>,
}

/// Where a sandbox stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum SandboxPhase {
    /// Asked for; no executor has it yet.
    Requested,
    /// An executor makes it.
    Starting {
        /// Whose it is.
        node: NodeId,
    },
    /// It works.
    Running {
        /// Whose it is.
        node: NodeId,
        /// Since when this has been so.
        since: DateTime<Utc>,
    },
    /// It never ran. Terminal.
    Failed {
        /// The kind of failure.
        code: FailureCode,
        /// One sentence.
        message: String,
        /// When that was.
        at: DateTime<Utc>,
    },
    /// It is gone. Terminal.
    Destroyed {
        /// The reason.
        reason: DestroyReason,
        /// When that was.
        at: DateTime<Utc>,
    },
}

impl SandboxState {
    /// The state after `event`, given the state before it. The first terminal event wins; what does not fit changes
    /// nothing.
    pub fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        let (Some(id), EventData::Sandbox(data)) = (event.sandbox, &event.data) else { return state };
        match (state, data) {
            (None, SandboxEvent::Requested(requested)) => Some(Self {
                id,
                tenant: event.tenant.clone(),
                spec: requested.spec.clone(),
                requested_at: event.time,
                expires_at: requested.expires_at,
                lifetime_ends_at: requested.lifetime_ends_at,
                term: requested.term,
                ending: None,
                phase: SandboxPhase::Requested,
                address: None,
            }),
            (None, _) => None,
            (Some(mut state), _) => {
                if state.id == id && !state.is_terminal() {
                    state.advance(event, data);
                }
                Some(state)
            }
        }
    }

    fn advance(&mut self, event: &Event, data: &SandboxEvent) {
        let at = event.time;
        match data {
            SandboxEvent::Starting(starting) => {
                if matches!(self.phase, SandboxPhase::Requested | SandboxPhase::Starting { .. }) {
                    self.phase = SandboxPhase::Starting { node: starting.node.clone() };
                }
            }
            SandboxEvent::Running(running) => {
                self.phase = SandboxPhase::Running { node: running.node.clone(), since: at };
                self.expires_at = running.expires_at.unwrap_or(self.expires_at);
                self.lifetime_ends_at = running.lifetime_ends_at.unwrap_or(self.lifetime_ends_at);
                // A new executor that takes it over may not know.
                self.address = running.address.or(self.address);
            }
            SandboxEvent::Failed(failed) => {
                self.phase = SandboxPhase::Failed { code: failed.code, message: failed.message.clone(), at };
            }
            SandboxEvent::TtlExtended(extended) => self.expires_at = extended.expires_at,
            SandboxEvent::Destroying(destroying) => {
                if self.ending.is_none() {
                    let (reason, by) = (destroying.reason, event.actor.clone());
                    self.ending = Some(Ending { reason, by, since: at });
                }
            }
            SandboxEvent::Destroyed(destroyed) => {
                // Whoever found it gone may not have heard that it was to go.
                let asked = self.ending.as_ref().map(|ending| ending.reason);
                let reason = match destroyed.reason {
                    DestroyReason::Vanished => asked.unwrap_or(DestroyReason::Vanished),
                    DestroyReason::User
                    | DestroyReason::Ttl
                    | DestroyReason::Lifetime
                    | DestroyReason::AgentLost => destroyed.reason,
                };
                self.phase = SandboxPhase::Destroyed { reason, at };
            }
            SandboxEvent::Requested(_) | SandboxEvent::Pulling(_) | SandboxEvent::Erased(_) => {}
        }
    }

    /// Whether nothing can happen to it any more.
    pub const fn is_terminal(&self) -> bool {
        matches!(self.phase, SandboxPhase::Failed { .. } | SandboxPhase::Destroyed { .. })
    }

    /// The node that has it, once one has.
    pub const fn node(&self) -> Option<&NodeId> {
        match &self.phase {
            SandboxPhase::Starting { node } | SandboxPhase::Running { node, .. } => Some(node),
            SandboxPhase::Requested | SandboxPhase::Failed { .. } | SandboxPhase::Destroyed { .. } => None,
        }
    }

    /// When its time is up: to live, or to wait for a place while it has none.
    pub fn deadline(&self) -> DateTime<Utc> {
        match (&self.phase, self.term) {
            (SandboxPhase::Requested, Some(term)) => term.start_by,
            _ => self.expires_at,
        }
    }

    /// Whether its deadline has passed. One that nobody has had room for has until then to be taken, and lives after that.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.deadline() <= now
    }

    /// Why it ends when its deadline passes.
    pub fn expiry_reason(&self) -> DestroyReason {
        if self.expires_at >= self.lifetime_ends_at { DestroyReason::Lifetime } else { DestroyReason::Ttl }
    }
}

impl Aggregate for SandboxState {
    const KIND: &'static str = "sandbox";
    const TAKES: &'static [Category] = &[Category::Sandbox];
    const FOUND_BY: FoundBy = FoundBy::Sandbox;

    fn changed_by(event: &Event) -> Option<Key> {
        let EventData::Sandbox(_) = &event.data else { return None };
        event.sandbox.map(Key::from)
    }

    fn judge(state: Option<&Self>, event: &Event) -> Result<usize, DropReason> {
        let EventData::Sandbox(said) = &event.data else { return Ok(0) };
        let Some(state) = state else {
            // Nobody could tell a second end from the first, and what it was asked to be is what its state begins with. It is
            // told again once the request is there.
            return if said.word().begins { Ok(0) } else { Err(DropReason::Gap) };
        };
        if state.tenant != event.tenant {
            return Err(DropReason::Contradiction);
        }
        // A sandbox begins once, on one node, whoever tells it; and its end is asked for once.
        let told = match said {
            SandboxEvent::Requested(_) => return Err(DropReason::Duplicate),
            SandboxEvent::Running(_) => matches!(state.phase, SandboxPhase::Running { .. }),
            SandboxEvent::Starting(starting) => match &state.phase {
                SandboxPhase::Starting { node } => *node == starting.node,
                SandboxPhase::Requested => false,
                SandboxPhase::Running { .. }
                | SandboxPhase::Failed { .. }
                | SandboxPhase::Destroyed { .. } => true,
            },
            SandboxEvent::Destroying(_) => state.ending.is_some(),
            SandboxEvent::Failed(_) | SandboxEvent::Destroyed(_) => false,
            // What is said of one that has ended changes nothing of it, and is part of what happened.
            SandboxEvent::Pulling(_) | SandboxEvent::TtlExtended(_) | SandboxEvent::Erased(_) => {
                return Ok(0);
            }
        };
        if state.is_terminal() {
            Err(DropReason::AfterEnd)
        } else if told {
            Err(DropReason::Duplicate)
        } else {
            Ok(0)
        }
    }

    fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        Self::apply(state, event)
    }

    fn key(&self) -> Key {
        self.id.into()
    }

    fn fields(&self) -> Fields {
        Fields {
            owner: self.spec.owner.clone(),
            place: self.node().map(ToString::to_string),
            label: Some(self.spec.provider.to_string()),
            ended: self.is_terminal(),
            due_us: Some(self.expires_at.timestamp_micros()),
            ..Fields::new(self.tenant.clone(), self.phase.as_str())
        }
    }
}

impl SandboxPhase {
    /// As it is written in the state.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Starting { .. } => "starting",
            Self::Running { .. } => "running",
            Self::Failed { .. } => "failed",
            Self::Destroyed { .. } => "destroyed",
        }
    }
}
