//! `POST /providers/test`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;

use super::all;
use crate::auth::Caller;
use crate::gateway::Gateway;

/// Whether each provider works. Executors check theirs all the time; this is what they found last.
#[utoipa::path(
    post,
    path = "/providers/test",
    tag = "providers",
    responses((status = 200, description = "Names, and whether they work", body = BTreeMap<String, bool>))
)]
pub(crate) async fn test(State(gateway): State<Gateway>, _: Caller) -> Json<BTreeMap<String, bool>> {
    Json(all(&gateway).into_iter().map(|provider| (provider.name, provider.healthy)).collect())
}
