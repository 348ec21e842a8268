//! `GET /snapshots`

use axum::Json;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;

/// A prepared machine.
#[derive(Debug, Serialize, ToSchema)]
pub struct Snapshot {
    /// The image that it was made from.
    pub image: String,
    /// The box-maker.
    pub provider: String,
}

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
