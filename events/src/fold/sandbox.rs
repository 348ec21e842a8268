use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Actor, DestroyReason, Event, EventData, FailureCode, NodeId, SandboxId, SandboxSpec, TenantId, Term,
};

/// What the log says about one sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxState {
    /// Which one.
    pub id: SandboxId,
    /// Whose.
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
    /// Why.
    pub reason: DestroyReason,
    /// Who asked.
    pub by: Actor,
    /// Since when.
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
        /// Since when.
        since: DateTime<Utc>,
    },
    /// The box is there, its agent does not answer.
    Unhealthy {
        /// Whose it is.
        node: NodeId,
        /// What is wrong.
        message: String,
    },
    /// Its node is gone.
    Lost {
        /// Whose it was.
        node: NodeId,
    },
    /// It never ran. Terminal.
    Failed {
        /// The kind of failure.
        code: FailureCode,
        /// One sentence.
        message: String,
        /// When.
        at: DateTime<Utc>,
    },
    /// It is gone. Terminal.
    Destroyed {
        /// Why.
        reason: DestroyReason,
        /// When.
        at: DateTime<Utc>,
    },
}

impl SandboxState {
    /// The state after `event`, given the state before it. The first terminal event wins; what does not fit changes
    /// nothing.
    pub fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        let Some(id) = event.sandbox else { return state };
        match (state, &event.data) {
            (None, EventData::SandboxRequested(requested)) => Some(Self {
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
                    state.advance(event);
                }
                Some(state)
            }
        }
    }

    fn advance(&mut self, event: &Event) {
        let at = event.time;
        match &event.data {
            EventData::SandboxStarting(starting) => {
                if matches!(self.phase, SandboxPhase::Requested | SandboxPhase::Starting { .. }) {
                    self.phase = SandboxPhase::Starting { node: starting.node.clone() };
                }
            }
            EventData::SandboxRunning(running) => {
                self.phase = SandboxPhase::Running { node: running.node.clone(), since: at };
                self.expires_at = running.expires_at.unwrap_or(self.expires_at);
                self.lifetime_ends_at = running.lifetime_ends_at.unwrap_or(self.lifetime_ends_at);
                // A new executor that takes it over may not know.
                self.address = running.address.or(self.address);
            }
            EventData::SandboxFailed(failed) => {
                self.phase = SandboxPhase::Failed { code: failed.code, message: failed.message.clone(), at };
            }
            EventData::SandboxTtlExtended(extended) => self.expires_at = extended.expires_at,
            EventData::SandboxUnhealthy(unhealthy) => {
                if let Some(node) = self.node().cloned() {
                    self.phase = SandboxPhase::Unhealthy { node, message: unhealthy.message.clone() };
                }
            }
            EventData::SandboxDestroying(destroying) => {
                if self.ending.is_none() {
                    let (reason, by) = (destroying.reason, event.actor.clone());
                    self.ending = Some(Ending { reason, by, since: at });
                }
            }
            EventData::SandboxDestroyed(destroyed) => {
                // Whoever found it gone may not have heard that it was to go.
                let asked = self.ending.as_ref().map(|ending| ending.reason);
                let reason = match destroyed.reason {
                    DestroyReason::Vanished => asked.unwrap_or(DestroyReason::Vanished),
                    DestroyReason::User
                    | DestroyReason::Ttl
                    | DestroyReason::Idle
                    | DestroyReason::Lifetime
                    | DestroyReason::JobDone
                    | DestroyReason::NodeLost
                    | DestroyReason::Shutdown
                    | DestroyReason::AgentLost => destroyed.reason,
                };
                self.phase = SandboxPhase::Destroyed { reason, at };
            }
            EventData::SandboxLost(lost) => self.phase = SandboxPhase::Lost { node: lost.node.clone() },
            EventData::SandboxRequested(_)
            | EventData::SandboxPulling(_)
            | EventData::ExecStarted(_)
            | EventData::ExecOutput(_)
            | EventData::ExecAttached(_)
            | EventData::ExecDetached(_)
            | EventData::ExecExited(_)
            | EventData::ExecTimedOut(_)
            | EventData::ExecKilled(_)
            | EventData::ExecFailed(_)
            | EventData::ExecOutcomeUnknown(_)
            | EventData::FileWritten(_)
            | EventData::FileRead(_)
            | EventData::FileDeleted(_)
            | EventData::FileMoved(_)
            | EventData::FileModeChanged(_)
            | EventData::TemplateSaved(_)
            | EventData::TemplateDeleted(_)
            | EventData::NodeJoined(_)
            | EventData::NodeDraining(_)
            | EventData::SandboxErased(_)
            | EventData::AccessGranted(_)
            | EventData::AccessRevoked(_)
            | EventData::AccessDenied(_)
            | EventData::AuditCheckpoint(_)
            | EventData::LogTrimmed(_)
            | EventData::LogRestored(_)
            | EventData::AuditKeyChanged(_)
            | EventData::WebhookSaved(_)
            | EventData::WebhookDeleted(_)
            | EventData::WebhookAdvanced(_)
            | EventData::WebhookRewound(_)
            | EventData::WebhookSuspended(_)
            | EventData::WebhookFailed(_)
            | EventData::WebhookPinged(_)
            | EventData::WebhookPingEnded(_)
            | EventData::ExecRequested(_)
            | EventData::ExecInput(_)
            | EventData::ExecResized(_)
            | EventData::ExecSignaled(_) => {}
        }
    }

    /// Whether nothing can happen to it any more.
    pub const fn is_terminal(&self) -> bool {
        matches!(self.phase, SandboxPhase::Failed { .. } | SandboxPhase::Destroyed { .. })
    }

    /// The node that has it, once one has.
    pub const fn node(&self) -> Option<&NodeId> {
        match &self.phase {
            SandboxPhase::Starting { node }
            | SandboxPhase::Running { node, .. }
            | SandboxPhase::Unhealthy { node, .. }
            | SandboxPhase::Lost { node } => Some(node),
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
