//! `GET /health`

use api_types::{Health, ProbeAnswer};
use axum::Json;
use axum::extract::State;

use super::VERSION;
use crate::gateway::Gateway;

/// How the gateway is. For a probe that decides on traffic use `/ready`.
#[utoipa::path(
    get,
    path = "/health",
    tag = "health",
    security(()),
    responses((status = 200, description = "It answers", body = Health))
)]
pub(crate) async fn check(State(gateway): State<Gateway>) -> Json<Health> {
    Json(Health { status: ProbeAnswer::Ok.into(), version: VERSION.into(), uptime: gateway.uptime_text() })
}
