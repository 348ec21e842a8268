//! What owners may have.

use serde::{Deserialize, Serialize};

/// What an owner may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quota {
    /// The owner.
    pub owner_id: String,
    /// How many sandboxes; 0 for any number.
    pub max_sandboxes: usize,
    /// The greatest time to live, as a Go duration.
    pub max_ttl: String,
    /// The greatest time of an exec, as a Go duration.
    pub max_exec_timeout: String,
}

/// How many owners have quotas. Exactly these fields: the SDK takes no other.
#[derive(Debug, Clone, Default, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QuotaSummary {
    /// Owners with any quota.
    pub total: u64,
    /// Those with a limit of sandboxes.
    pub with_max_sandboxes: u64,
    /// Those with a limit of the time to live.
    pub with_max_ttl: u64,
    /// Those with a limit of the time of an exec.
    pub with_max_exec_timeout: u64,
}

/// What an owner has, and may have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Usage))]
pub struct QuotaUsage {
    /// The owner.
    pub owner_id: String,
    /// Live sandboxes of the owner.
    pub active_sandboxes: usize,
    /// How many the owner may have; 0 for any number.
    pub max_sandboxes: u64,
    /// The greatest time to live, as a Go duration.
    pub max_ttl: String,
    /// The greatest time of an exec, as a Go duration.
    pub max_exec_timeout: String,
    /// Whether the owner has a quota of its own. None has yet: the maxima are the server's.
    pub quota_configured: bool,
}
