//! `GET /ready`

use std::time::Duration;

use axum::Json;
use axum::extract::State;

use super::Readiness;
use crate::error::{ApiError, ErrorBody};
use crate::gateway::Gateway;

const PATIENCE: Duration = Duration::from_secs(2);
/// The recorder speaks every second. After so long without a word nothing is being recorded, and so nothing answered.
const RECORDER_SILENCE: Duration = Duration::from_secs(8);

/// Whether requests can be carried out: the transport is connected, the recorder lives and the record can be read.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "health",
    security(()),
    responses(
        (status = 200, description = "They can", body = Readiness),
        (status = 503, description = "They cannot", body = ErrorBody),
    )
)]
pub(crate) async fn ready(State(gateway): State<Gateway>) -> Result<Json<Readiness>, ApiError> {
    if gateway.closing().is_cancelled() {
        return Err(ApiError::unavailable("the gateway stops"));
    }
    if !gateway.log().is_connected() {
        return Err(ApiError::unavailable("NATS is not connected"));
    }
    if gateway.feed().silent_for() > RECORDER_SILENCE {
        return Err(ApiError::unavailable("the recorder is silent"));
    }
    match tokio::time::timeout(PATIENCE, gateway.store().head()).await {
        Ok(Ok(_)) => Ok(Json(Readiness::of(&gateway))),
        Ok(Err(error)) => Err(ApiError::unavailable(error)),
        Err(_) => Err(ApiError::unavailable("the event store does not answer")),
    }
}
