//! `GET /quotas`

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;

/// What an owner may have.
#[derive(Debug, Serialize, ToSchema)]
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

/// The quotas of owners. This server has none yet, so the array is empty.
#[utoipa::path(
    get,
    path = "/quotas",
    tag = "quotas",
    responses((status = 200, description = "None", body = [Quota]))
)]
pub(crate) async fn list(_: Caller) -> Json<Vec<Quota>> {
    Json(Vec::new())
}
