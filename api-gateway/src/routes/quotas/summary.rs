//! `GET /quotas/summary`

use api_types::QuotaSummary;
use axum::Json;

use crate::auth::Caller;

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
