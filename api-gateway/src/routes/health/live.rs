//! `GET /live`

use api_types::{Liveness, ProbeAnswer};
use axum::Json;
use axum::extract::State;

use super::VERSION;
use crate::gateway::Gateway;

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/live",
    tag = "health",
    security(()),
    responses((status = 200, description = "It does", body = Liveness))
)]
pub(crate) async fn live(State(gateway): State<Gateway>) -> Json<Liveness> {
    Json(Liveness {
        status: ProbeAnswer::Alive.into(),
        version: VERSION.into(),
        uptime: gateway.uptime_text(),
    })
}
