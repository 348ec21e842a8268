//! `GET /snapshots`

use api_types::Snapshot;
use axum::Json;

use crate::auth::Caller;

/// Prepared machines. This server has none yet, so the array is empty.
#[utoipa::path(
    get,
    path = "/snapshots",
    tag = "snapshots",
    responses((status = 200, description = "None", body = [Snapshot]))
)]
pub(crate) async fn list(_: Caller) -> Json<Vec<Snapshot>> {
    Json(Vec::new())
}
