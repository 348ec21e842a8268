//! What the log says about itself: who was let in or turned away, what was signed, erased or trimmed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, ChainHash, EventId, ExecId, Position, TenantId};

/// `access.granted`: a link was made with which others may watch an exec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessGranted {
    /// Which exec.
    pub exec: ExecId,
    /// Until when.
    pub expires_at: DateTime<Utc>,
    /// The link's id, as the actor `viewer:ID` of whoever uses it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub viewer: Option<ApiKeyId>,
}

/// `access.revoked`: a link is not good any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessRevoked {
    /// Which exec it was for.
    pub exec: ExecId,
    /// The link's id.
    pub viewer: ApiKeyId,
}

/// `access.denied`: requests were turned away. They are counted, so that a flood of them is a few events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccessDenied {
    /// The method and the route, without what the client filled in: `DELETE /sandboxes/{id}`.
    pub route: String,
    /// Why, in one sentence.
    pub reason: String,
    /// The address that it came from; nothing when it came from more than are told apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// How many there were of the same source and reason, within a minute. The route is that of the first.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub count: u64,
    /// When the first of them came, where there were more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_at: Option<DateTime<Utc>>,
}

const fn one() -> u64 {
    1
}

fn is_one(count: &u64) -> bool {
    *count == 1
}

/// `audit.checkpoint`: the signed end of every tenant's hash chain at one position.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditCheckpoint {
    /// What is signed.
    #[serde(flatten)]
    pub statement: CheckpointStatement,
    /// Which key signed: the first 16 hexadecimal digits of the SHA-256 of the public key.
    pub key_id: String,
    /// ed25519 over the statement's canonical bytes, in hexadecimal.
    pub signature: String,
}

/// What a checkpoint states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatement {
    /// It speaks of all events up to and including this one.
    pub up_to: Position,
    /// When it was made.
    pub at: DateTime<Utc>,
    /// The chains, by tenant; those that had no event since the checkpoint before are left out.
    pub chains: Vec<ChainPoint>,
    /// SHA-256 of the statement before this one; zeros for the first.
    pub previous: ChainHash,
}

/// The end of one tenant's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainPoint {
    /// Whose.
    pub tenant: TenantId,
    /// The tenant's newest event.
    pub position: Position,
    /// Its link.
    pub hash: ChainHash,
}

/// `sandbox.erased`: the key was destroyed under which what the sandbox wrote and read was kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxErased {}

/// What is kept for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetentionClass {
    /// The bytes of output and input. Their events and hashes stay.
    Output,
    /// Whole events.
    Lifecycle,
}

/// `log.trimmed`: what is old was dropped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogTrimmed {
    /// What was dropped.
    pub class: RetentionClass,
    /// Up to and including this position.
    pub up_to: Position,
    /// The checkpoint that speaks of it.
    pub checkpoint: EventId,
}

/// `log.restored`: an older copy took the place of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRestored {
    /// What is signed.
    #[serde(flatten)]
    pub statement: RestoreStatement,
    /// Which key signed.
    pub key_id: String,
    /// ed25519 over the statement's canonical bytes, in hexadecimal.
    pub signature: String,
}

/// What is stated of a copy that was put in the log's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreStatement {
    /// The newest event of the copy.
    pub up_to: Position,
    /// The newest event that is known to have been there before. What came after `up_to`, up to here, is lost.
    pub lost_to: Position,
    /// When that was done.
    pub at: DateTime<Utc>,
}

/// `audit.key_changed`: another key signs from here on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditKeyChanged {
    /// The key that signed before, by its id.
    pub from: String,
    /// The public key that signs now, in hexadecimal.
    pub to: String,
    /// When it began.
    pub at: DateTime<Utc>,
    /// What the key before says of it, in hexadecimal; nothing where that is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}
