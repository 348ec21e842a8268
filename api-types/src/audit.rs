//! The log, for auditors.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A page of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditList {
    /// The events.
    pub events: Vec<AuditEntry>,
    /// Where to go on; null at the end. A page may be short or empty and still have one: what is rare is looked for in
    /// pieces.
    pub next_after: Option<u64>,
}

/// An event, without the bytes of its body.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Where it stands in the log.
    pub position: u64,
    /// Unique.
    pub id: String,
    /// When, in UTC.
    pub time: String,
    /// Whose.
    pub tenant: String,
    /// What happened.
    pub r#type: Cow<'static, str>,
    /// About which sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// About which exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<String>,
    /// Who did it.
    pub actor: String,
    /// The request that it follows from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// The command that it follows from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// How many bytes its body had: output or input.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u64>,
    /// The details, which depend on the type.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub data: Option<Box<RawValue>>,
}

/// A page of checkpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Checkpoints))]
pub struct CheckpointList {
    /// The checkpoints.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Object>))]
    pub checkpoints: Vec<Box<RawValue>>,
    /// Where to go on; null at the end.
    pub next_after: Option<u64>,
    /// The public keys that this server knows, in hexadecimal. Do not take them from here alone: whoever changed the log
    /// may have changed them.
    pub public_keys: Vec<String>,
}
