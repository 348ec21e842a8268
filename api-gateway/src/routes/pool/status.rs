//! `GET /pool/status`

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;

/// Whether machines are shared between users. Here every sandbox is its own.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoolStatus {
    /// Always false.
    pub enabled: bool,
}

/// Whether machines are shared between users.
#[utoipa::path(
    get,
    path = "/pool/status",
    tag = "pool",
    responses((status = 200, description = "They are not", body = PoolStatus))
)]
pub(crate) async fn status(_: Caller) -> Json<PoolStatus> {
    Json(PoolStatus { enabled: false })
}
