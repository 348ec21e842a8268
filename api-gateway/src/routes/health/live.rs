//! `GET /live`

use axum::Json;

use crate::routes::Status;

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/live",
    tag = "health",
    security(()),
    responses((status = 200, description = "It does", body = Status))
)]
pub(crate) async fn live() -> Json<Status> {
    Status::json("alive")
}
