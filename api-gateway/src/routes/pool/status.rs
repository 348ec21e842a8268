//! `GET /pool/status`

use api_types::PoolStatus;
use axum::Json;

use crate::auth::Caller;

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
