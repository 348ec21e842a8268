use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{DestroyReason, Event, EventData, FailureCode, NodeId, SandboxId, SandboxSpec, TenantId};

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
    /// Where it stands.
    pub phase: SandboxPhase,
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
                phase: SandboxPhase::Requested,
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
            EventData::SandboxDestroyed(destroyed) => {
                self.phase = SandboxPhase::Destroyed { reason: destroyed.reason, at };
            }
            EventData::SandboxLost(lost) => self.phase = SandboxPhase::Lost { node: lost.node.clone() },
            EventData::SandboxRequested(_)
            | EventData::SandboxPulling(_)
            | EventData::ExecStarted(_)
            | EventData::ExecOutput(_)
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
            | EventData::AccessDenied(_)
            | EventData::AuditCheckpoint(_)
            | EventData::LogTrimmed(_)
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

    /// Whether its deadline has passed.
    pub fn is_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at <= now
    }
}
