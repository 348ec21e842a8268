//! `POST /webhooks/{id}/redeliver`

use api_types::{RedeliverRequest, Webhook};
use axum::Json;
use axum::extract::State;
use events::{EventId, WebhookRewound};

use super::spec::cursor;
use super::{answer, find, no_webhook, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JsonBody, WebhookPath};
use crate::gateway::Gateway;

/// Moves the cursor, back or forth, and wakes a suspended webhook.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/redeliver",
    tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")),
    request_body = RedeliverRequest,
    responses(
        (status = 200, description = "The webhook", body = Webhook),
        (status = 400, description = "No position", body = ErrorBody),
        (status = 404, description = "No such webhook", body = ErrorBody),
    )
)]
pub(crate) async fn redeliver(
    State(gateway): State<Gateway>,
    caller: Caller,
    WebhookPath(id): WebhookPath,
    JsonBody(request): JsonBody<RedeliverRequest>,
) -> Result<Json<Webhook>, ApiError> {
    find(&gateway, &caller, id)?;
    let from = request.from.ok_or_else(|| ApiError::bad_request("from is missing"))?;
    let rewound = WebhookRewound { webhook: id, cursor: cursor(&from, gateway.feed().head())? };
    let event = EventId::new();
    gateway.publish(&caller, None, event, gateway.clock().now(), rewound).await?;
    let state = shown(&gateway, &caller.tenant, id, |state| state.is_none_or(|state| state.epoch == event));
    let state = state.await?.ok_or_else(|| no_webhook(id))?;
    Ok(Json(answer(&gateway, state, None).await?))
}
