//! `GET /sandboxes`

use axum::Json;
use axum::extract::State;

use super::Sandbox;
use crate::auth::Caller;
use crate::gateway::Gateway;

/// All sandboxes of the tenant that have not ended, the oldest first, as a bare array.
#[utoipa::path(
    get,
    path = "/sandboxes",
    tag = "sandboxes",
    responses((status = 200, description = "The sandboxes", body = [Sandbox]))
)]
pub(crate) async fn list(State(gateway): State<Gateway>, caller: Caller) -> Json<Vec<Sandbox>> {
    let mut states = gateway.view().live_sandboxes();
    states.retain(|state| state.tenant == caller.tenant);
    states.sort_by_key(|state| (state.requested_at, state.id));
    Json(states.iter().map(|state| Sandbox::of(state, &gateway)).collect())
}
