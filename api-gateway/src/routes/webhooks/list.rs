//! `GET /webhooks`

use api_types::Webhook;
use axum::Json;
use axum::extract::State;

use super::answer;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::gateway::Gateway;

/// All webhooks of the tenant, the oldest first, as a bare array.
#[utoipa::path(
    get,
    path = "/webhooks",
    tag = "webhooks",
    responses((status = 200, description = "The webhooks", body = [Webhook]))
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
) -> Result<Json<Vec<Webhook>>, ApiError> {
    let mut webhooks = Vec::new();
    for state in gateway.view().webhooks(&caller.tenant) {
        webhooks.push(answer(&gateway, state, None).await?);
    }
    Ok(Json(webhooks))
}
