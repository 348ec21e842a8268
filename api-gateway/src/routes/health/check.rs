//! `GET /health`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::gateway::Gateway;

/// How the gateway is.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`
    pub status: &'static str,
    /// Of the server.
    pub version: &'static str,
    /// Since its start, as a Go duration.
    pub uptime: String,
}

/// How the gateway is. For a probe that decides on traffic use `/ready`.
#[utoipa::path(
    get,
    path = "/health",
    tag = "health",
    security(()),
    responses((status = 200, description = "It answers", body = Health))
)]
pub(crate) async fn check(State(gateway): State<Gateway>) -> Json<Health> {
    Json(Health { status: "ok", version: env!("CARGO_PKG_VERSION"), uptime: gateway.uptime_text() })
}
