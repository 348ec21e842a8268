//! The envelope of an event, and the closed list of its types.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::audit::*;
use super::exec::*;
use super::sandbox::*;
use super::template::*;
use super::webhook::*;
use crate::{ApiKeyId, CommandId, EventId, ExecId, NodeId, RequestId, SandboxId, TenantId, WebhookId};

/// Who did it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Actor {
    /// A client, by its API key and the user it named.
    Client {
        /// The key; none where authentication is off.
        key: Option<ApiKeyId>,
        /// `X-User-ID`.
        user: Option<String>,
    },
    /// The executor of a node.
    Executor(NodeId),
    /// The reaper.
    Reaper,
    /// The recorder.
    Recorder,
    /// The deliverer of webhooks.
    Webhooks,
    /// Whoever holds a viewer link, by the link's id.
    Viewer(ApiKeyId),
}

/// A text that names no actor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an actor: {0:?}")]
pub struct UnknownActor(pub String);

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { key, user } => {
                f.write_str("client:")?;
                if let Some(key) = key {
                    write!(f, "{key}")?;
                }
                if let Some(user) = user {
                    write!(f, "/{user}")?;
                }
                Ok(())
            }
            Self::Executor(node) => write!(f, "executor:{node}"),
            Self::Reaper => f.write_str("reaper"),
            Self::Recorder => f.write_str("recorder"),
            Self::Webhooks => f.write_str("webhooks"),
            Self::Viewer(link) => write!(f, "viewer:{link}"),
        }
    }
}

impl FromStr for Actor {
    type Err = UnknownActor;

    fn from_str(text: &str) -> Result<Self, UnknownActor> {
        let unknown = || UnknownActor(text.to_owned());
        if let Some(client) = text.strip_prefix("client:") {
            let (key, user) = match client.split_once('/') {
                Some((key, user)) => (key, Some(user.to_owned())),
                None => (client, None),
            };
            let key = if key.is_empty() { None } else { Some(key.parse().map_err(|_| unknown())?) };
            return Ok(Self::Client { key, user });
        }
        if let Some(node) = text.strip_prefix("executor:") {
            return node.parse().map(Self::Executor).map_err(|_| unknown());
        }
        if let Some(link) = text.strip_prefix("viewer:") {
            return link.parse().map(Self::Viewer).map_err(|_| unknown());
        }
        match text {
            "webhooks" => Ok(Self::Webhooks),
            "reaper" => Ok(Self::Reaper),
            "recorder" => Ok(Self::Recorder),
            _ => Err(unknown()),
        }
    }
}

impl TryFrom<String> for Actor {
    type Error = UnknownActor;
    fn try_from(text: String) -> Result<Self, UnknownActor> {
        text.parse()
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> Self {
        actor.to_string()
    }
}

/// A fact: what happened, to what, when, by whom, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Unique; the same fact published twice has the same id.
    pub id: EventId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which sandbox it is about, if any.
    pub sandbox: Option<SandboxId>,
    /// When it happened, by the clock of who saw it, in microseconds.
    pub time: DateTime<Utc>,
    /// Who did it.
    pub actor: Actor,
    /// The command that it follows from.
    pub cause: Option<CommandId>,
    /// The request that it follows from.
    pub request_id: Option<RequestId>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// What happened.
    pub data: EventData,
}

/// A type of event that this build does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown event type {0:?}")]
pub struct UnknownEventType(pub String);

macro_rules! event_types {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// What happened. The names on the wire stand beside the variants; renaming Rust never renames the log.
        #[derive(Debug, Clone, PartialEq)]
        pub enum EventData {
            $(#[doc = concat!("`", $name, "`")] $variant($variant),)+
        }

        impl EventData {
            /// Every name, in the order of the vocabulary.
            pub const TYPES: &'static [&'static str] = &[$($name),+];

            /// The name on the wire.
            pub const fn type_name(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $name,)+
                }
            }

            pub(crate) fn data_to_json(&self, into: &mut Vec<u8>) -> serde_json::Result<()> {
                match self {
                    $(Self::$variant(data) => serde_json::to_writer(into, data),)+
                }
            }

            pub(crate) fn from_json(type_name: &str, data: &str) -> Result<Self, crate::DecodeError> {
                match type_name {
                    $($name => Ok(Self::$variant(serde_json::from_str(data)?)),)+
                    _ => Err(UnknownEventType(type_name.to_owned()).into()),
                }
            }
        }

        $(impl From<$variant> for EventData {
            fn from(data: $variant) -> Self {
                Self::$variant(data)
            }
        })+
    };
}

event_types! {
    SandboxRequested = "sandbox.requested",
    SandboxStarting = "sandbox.starting",
    SandboxPulling = "sandbox.pulling",
    SandboxRunning = "sandbox.running",
    SandboxFailed = "sandbox.failed",
    SandboxTtlExtended = "sandbox.ttl_extended",
    SandboxUnhealthy = "sandbox.unhealthy",
    SandboxDestroyed = "sandbox.destroyed",
    SandboxLost = "sandbox.lost",
    SandboxErased = "sandbox.erased",
    ExecRequested = "exec.requested",
    ExecStarted = "exec.started",
    ExecOutput = "exec.output",
    ExecInput = "exec.input",
    ExecResized = "exec.resized",
    ExecSignaled = "exec.signaled",
    ExecExited = "exec.exited",
    ExecTimedOut = "exec.timed_out",
    ExecKilled = "exec.killed",
    ExecFailed = "exec.failed",
    ExecOutcomeUnknown = "exec.outcome_unknown",
    FileWritten = "file.written",
    FileRead = "file.read",
    FileDeleted = "file.deleted",
    FileMoved = "file.moved",
    FileModeChanged = "file.mode_changed",
    TemplateSaved = "template.saved",
    TemplateDeleted = "template.deleted",
    NodeJoined = "node.joined",
    NodeDraining = "node.draining",
    AccessGranted = "access.granted",
    AccessDenied = "access.denied",
    AuditCheckpoint = "audit.checkpoint",
    LogTrimmed = "log.trimmed",
    WebhookSaved = "webhook.saved",
    WebhookDeleted = "webhook.deleted",
    WebhookAdvanced = "webhook.advanced",
    WebhookFailed = "webhook.failed",
    WebhookRewound = "webhook.rewound",
    WebhookSuspended = "webhook.suspended",
    WebhookPinged = "webhook.pinged",
    WebhookPingEnded = "webhook.ping_ended",
    SandboxDestroying = "sandbox.destroying",
    ExecAttached = "exec.attached",
    ExecDetached = "exec.detached",
    LogRestored = "log.restored",
    AuditKeyChanged = "audit.key_changed",
    AccessRevoked = "access.revoked",
}

impl EventData {
    /// The exec that it is about, if any.
    pub const fn exec(&self) -> Option<ExecId> {
        match self {
            Self::ExecRequested(data) => Some(data.exec),
            Self::ExecStarted(data) => Some(data.exec),
            Self::ExecInput(data) => Some(data.exec),
            Self::ExecResized(data) => Some(data.exec),
            Self::ExecSignaled(data) => Some(data.exec),
            Self::ExecOutput(data) => Some(data.exec),
            Self::ExecExited(data) => Some(data.exec),
            Self::ExecTimedOut(data) => Some(data.exec),
            Self::ExecKilled(data) => Some(data.exec),
            Self::ExecFailed(data) => Some(data.exec),
            Self::ExecOutcomeUnknown(data) => Some(data.exec),
            Self::ExecAttached(data) => Some(data.exec),
            Self::ExecDetached(data) => Some(data.exec),
            Self::SandboxRequested(_)
            | Self::SandboxStarting(_)
            | Self::SandboxPulling(_)
            | Self::SandboxRunning(_)
            | Self::SandboxFailed(_)
            | Self::SandboxTtlExtended(_)
            | Self::SandboxUnhealthy(_)
            | Self::SandboxDestroying(_)
            | Self::SandboxDestroyed(_)
            | Self::SandboxLost(_)
            | Self::FileWritten(_)
            | Self::FileRead(_)
            | Self::FileDeleted(_)
            | Self::FileMoved(_)
            | Self::FileModeChanged(_)
            | Self::TemplateSaved(_)
            | Self::TemplateDeleted(_)
            | Self::NodeJoined(_)
            | Self::NodeDraining(_)
            | Self::SandboxErased(_)
            | Self::AccessGranted(_)
            | Self::AccessRevoked(_)
            | Self::AccessDenied(_)
            | Self::AuditCheckpoint(_)
            | Self::LogTrimmed(_)
            | Self::LogRestored(_)
            | Self::AuditKeyChanged(_)
            | Self::WebhookSaved(_)
            | Self::WebhookDeleted(_)
            | Self::WebhookAdvanced(_)
            | Self::WebhookFailed(_)
            | Self::WebhookRewound(_)
            | Self::WebhookSuspended(_)
            | Self::WebhookPinged(_)
            | Self::WebhookPingEnded(_) => None,
        }
    }

    /// The webhook that it is about, if any.
    pub const fn webhook(&self) -> Option<WebhookId> {
        if let Self::WebhookSaved(data) = self {
            Some(data.webhook.id)
        } else if let Self::WebhookDeleted(WebhookDeleted { webhook })
        | Self::WebhookAdvanced(WebhookAdvanced { webhook, .. })
        | Self::WebhookFailed(WebhookFailed { webhook, .. })
        | Self::WebhookRewound(WebhookRewound { webhook, .. })
        | Self::WebhookSuspended(WebhookSuspended { webhook, .. })
        | Self::WebhookPinged(WebhookPinged { webhook })
        | Self::WebhookPingEnded(WebhookPingEnded { webhook, .. }) = self
        {
            Some(*webhook)
        } else {
            None
        }
    }

    /// The category: the part of the type name before the dot.
    pub fn category(&self) -> &'static str {
        let name = self.type_name();
        name.split_once('.').map_or(name, |(category, _)| category)
    }
}
