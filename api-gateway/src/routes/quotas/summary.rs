//! `GET /quotas/summary`

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;

/// How many owners have quotas. Exactly these fields: the SDK takes no other.
#[derive(Debug, Default, Serialize, ToSchema)]
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

/// How many owners have quotas. This server has none yet.
#[utoipa::path(
    get,
    path = "/quotas/summary",
    tag = "quotas",
    responses((status = 200, description = "The counts", body = QuotaSummary))
)]
pub(crate) async fn summary(_: Caller) -> Json<QuotaSummary> {
    Json(QuotaSummary::default())
}
