//! `GET /quotas`

use api_types::Quota;
use axum::Json;

use crate::auth::Caller;

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
