//! What happened to a sandbox, and what it was.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::execs::Exec;
use crate::sandboxes::Sandbox;
use crate::word::{Open, words};

words! {
    /// Why a sandbox was destroyed.
    DestroyReason {
        /// A client asked for it.
        User => "user",
        /// Its deadline passed.
        Ttl => "ttl",
        /// It reached the greatest age that a sandbox may have.
        Lifetime => "lifetime",
        /// The box ended by itself, or somebody removed it.
        Vanished => "vanished",
        /// Its agent could not be reached for too long.
        AgentLost => "agent_lost",
    }
}

words! {
    /// What an event is about: the part of its type before the dot.
    EventCategory {
        /// A sandbox and its life.
        Sandbox => "sandbox",
        /// A run of a command.
        Exec => "exec",
        /// A file in a sandbox.
        File => "file",
        /// Who may watch what.
        Access => "access",
        /// A named set of defaults.
        Template => "template",
        /// A reader of the log that is called over HTTP.
        Webhook => "webhook",
        /// A command in a sandbox of its own, with an outcome.
        Job => "job",
        /// A job, and when it is to be submitted.
        Schedule => "schedule",
        /// A host that has sandboxes.
        Node => "node",
        /// Proofs of the log.
        Audit => "audit",
        /// The log itself.
        Log => "log",
    }
}

/// What happened to a sandbox and in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timeline {
    /// The sandbox as it is now, or as it was at its end.
    pub sandbox: Sandbox,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// Why it was destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<DestroyReason>))]
    pub reason: Option<Open<DestroyReason>>,
    /// In the order of the log.
    pub entries: Vec<TimelineEntry>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_after: Option<u64>,
}

/// One thing that happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimelineEntry {
    /// Where it stands in the log.
    pub position: u64,
    /// When.
    pub time: DateTime<Utc>,
    /// What: `sandbox.running`, `exec.started`, `file.written`.
    pub r#type: Cow<'static, str>,
    /// The part of the type before the dot.
    #[cfg_attr(feature = "openapi", schema(value_type = EventCategory))]
    pub category: Open<EventCategory>,
    /// Who did it.
    pub actor: String,
    /// The request that it follows from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// A few words for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// Which exec it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<String>,
    /// The whole of the exec, on the entry that begins it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<TimelineExec>,
    /// What the event says, as in the event feed.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub data: Box<RawValue>,
}

/// An exec, from its beginning to its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimelineExec {
    /// What `GET /execs/{id}` says of it.
    #[serde(flatten)]
    pub exec: Exec,
    /// The event that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_position: Option<u64>,
    /// How long it ran, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_us: Option<u64>,
}

/// A sandbox as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PastSandbox {
    /// What it was.
    #[serde(flatten)]
    pub sandbox: Sandbox,
    /// The last event that made it so.
    pub position: u64,
    /// When that happened.
    pub changed_at: DateTime<Utc>,
    /// Why it was destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<DestroyReason>))]
    pub reason: Option<Open<DestroyReason>>,
}
