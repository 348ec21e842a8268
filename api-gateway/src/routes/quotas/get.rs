//! `GET /quotas/{owner}`

use api_types::Quota;
use axum::Json;
use axum::extract::Path;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};

/// The quota of an owner. This server has none yet.
#[utoipa::path(
    get,
    path = "/quotas/{owner}",
    tag = "quotas",
    params(("owner" = String, Path, description = "The owner")),
    responses(
        (status = 200, description = "The quota", body = Quota),
        (status = 404, description = "The owner has no quota of its own", body = ErrorBody),
    )
)]
pub(crate) async fn get(_: Caller, Path(owner): Path<String>) -> Result<Json<Quota>, ApiError> {
    Err(ApiError::not_found(format!("owner {owner:?} has no quota of its own")))
}
