//! `GET /providers`

use api_types::Provider;
use axum::Json;
use axum::extract::State;

use super::shown;
use crate::auth::Caller;
use crate::gateway::Gateway;

/// All providers, as a bare array.
#[utoipa::path(
    get,
    path = "/providers",
    tag = "providers",
    responses((status = 200, description = "The providers", body = [Provider]))
)]
pub(crate) async fn list(State(gateway): State<Gateway>, caller: Caller) -> Json<Vec<Provider>> {
    Json(shown(&gateway, &caller))
}
