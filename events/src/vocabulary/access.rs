//! Who was let in or turned away.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{ApiKeyId, ExecId};

words! {
    /// Who was let in or turned away.
    Access(AccessEvent) {
        Granted(AccessGranted) = "access.granted",
        Denied(AccessDenied) = "access.denied",
        Revoked(AccessRevoked) = "access.revoked",
    }
}

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
