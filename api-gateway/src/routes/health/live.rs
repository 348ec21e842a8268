//! `GET /live`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::gateway::Gateway;

/// A process that answers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Liveness {
    /// `alive`
    pub status: &'static str,
    /// Of the server.
    pub version: &'static str,
    /// Since its start, as a Go duration.
    pub uptime: String,
}

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/live",
    tag = "health",
    security(()),
    responses((status = 200, description = "It does", body = Liveness))
)]
pub(crate) async fn live(State(gateway): State<Gateway>) -> Json<Liveness> {
    Json(Liveness { status: "alive", version: env!("CARGO_PKG_VERSION"), uptime: gateway.uptime_text() })
}
