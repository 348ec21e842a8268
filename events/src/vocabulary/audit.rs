//! What the log says about itself: what was signed, erased or trimmed.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ChainHash, EventId, Position, TenantId};

words! {
    /// What was signed, and by which key.
    Audit(AuditEvent) {
        Checkpoint(AuditCheckpoint) = "audit.checkpoint" [unsent],
        KeyChanged(AuditKeyChanged) = "audit.key_changed",
    }
}

words! {
    /// What happens to the log itself.
    Log(LogEvent) {
        Trimmed(LogTrimmed) = "log.trimmed",
        Restored(LogRestored) = "log.restored",
    }
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
    /// The tenant that it belongs to.
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
