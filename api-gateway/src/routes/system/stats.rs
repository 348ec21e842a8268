//! `GET /system/stats`

use std::time::Duration;

use api_types::HostStats;
use axum::Json;
use tokio::time::Instant;

use super::host::{Counters, between};
use crate::error::{ApiError, ErrorBody};

/// A rate needs two looks.
const APART: Duration = Duration::from_millis(100);

/// How busy the machine of this gateway is. For the operator: one tenant need not see what the others do to it.
#[utoipa::path(
    get,
    path = "/system/stats",
    tag = "system",
    responses(
        (status = 200, description = "The numbers", body = HostStats),
        (status = 403, description = "Not the operator's key", body = ErrorBody),
    )
)]
pub(crate) async fn stats() -> Result<Json<HostStats>, ApiError> {
    let (before, began) = (Counters::read().map_err(ApiError::internal)?, Instant::now());
    tokio::time::sleep(APART).await;
    let after = Counters::read().map_err(ApiError::internal)?;
    between(before, after, began.elapsed()).map(Json).map_err(ApiError::internal)
}
