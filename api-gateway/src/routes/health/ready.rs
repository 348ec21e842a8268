//! `GET /ready`

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::Readiness;
use crate::error::ErrorCode;
use crate::gateway::Gateway;
use crate::readiness::Reason;

/// Why requests cannot be carried out.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Unready {
    /// `UNAVAILABLE`
    code: ErrorCode,
    /// All reasons in one line, for people.
    message: String,
    /// Each of them.
    reasons: Vec<Reason>,
}

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
        return Ok(Json(Readiness::of(&gateway)));
    }
    let message = reasons.iter().map(|reason| format!("{}: {}", reason.code, reason.message));
    let message = message.collect::<Vec<_>>().join("; ");
    Err((StatusCode::SERVICE_UNAVAILABLE, Json(Unready { code: ErrorCode::Unavailable, message, reasons })))
}
