//! `GET /ready`

use api_types::{ErrorCode, Readiness, Unready};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::readiness;
use crate::gateway::Gateway;

/// Whether requests can be carried out. Proven, at most a second ago: a message went the way of all events through the
/// transport, the recorder has committed it to the database and answered. No event comes of it.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "health",
    security(()),
    responses(
        (status = 200, description = "They can", body = Readiness),
        (status = 503, description = "They cannot, and why", body = Unready),
    )
)]
pub(crate) async fn ready(
    State(gateway): State<Gateway>,
) -> Result<Json<Readiness>, (StatusCode, Json<Unready>)> {
    let reasons = gateway.readiness().check().await;
    if reasons.is_empty() {
        return Ok(Json(readiness::of(&gateway)));
    }
    let message = reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.message));
    let message = message.collect::<Vec<_>>().join("; ");
    Err((
        StatusCode::SERVICE_UNAVAILABLE,
        Json(Unready { code: ErrorCode::Unavailable.into(), message, reasons }),
    ))
}
