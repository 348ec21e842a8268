//! `GET /webhooks/{id}`

use api_types::Webhook;
use axum::Json;
use axum::extract::State;

use super::{answer, find};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::WebhookPath;
use crate::gateway::Gateway;

/// One webhook and how it is doing.
#[utoipa::path(
    get,
    path = "/webhooks/{id}",
    tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")),
    responses(
        (status = 200, description = "The webhook", body = Webhook),
        (status = 404, description = "No such webhook", body = ErrorBody),
    )
)]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    WebhookPath(id): WebhookPath,
) -> Result<Json<Webhook>, ApiError> {
    let state = find(&gateway, &caller, id)?;
    Ok(Json(answer(&gateway, state, None).await?))
}
