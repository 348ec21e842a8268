//! `PUT /webhooks/{id}`

use api_types::{Webhook, WebhookRequest};
use axum::Json;
use axum::extract::State;
use events::{EventId, WebhookSaved};

use super::create::seal;
use super::spec::Spec;
use super::{answer, find, no_webhook, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JsonBody, WebhookPath};
use crate::gateway::Gateway;

/// Replaces what a webhook is. Its cursor stays, its secret too unless there is a new one; a suspended one wakes.
#[utoipa::path(
    put,
    path = "/webhooks/{id}",
    tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")),
    request_body = WebhookRequest,
    responses(
        (status = 200, description = "The webhook, with its secret if that is new", body = Webhook),
        (status = 400, description = "A field is wrong, or the address may not be called", body = ErrorBody),
        (status = 404, description = "No such webhook, or no such sandbox", body = ErrorBody),
    )
)]
pub(crate) async fn update(
    State(gateway): State<Gateway>,
    caller: Caller,
    WebhookPath(id): WebhookPath,
    JsonBody(request): JsonBody<WebhookRequest>,
) -> Result<Json<Webhook>, ApiError> {
    let old = find(&gateway, &caller, id)?;
    let spec = Spec::read(request, &gateway.config().webhooks, gateway.feed().head())?;
    if spec.cursor.is_some() {
        return Err(ApiError::bad_request(
            "from is for a new webhook: use redeliver to move the cursor of this one",
        ));
    }
    spec.check_sandbox(&gateway, &caller).await?;
    let sealed_secret = match &spec.secret {
        Some(secret) => seal(&gateway, id, secret)?,
        None => old.webhook.sealed_secret,
    };
    let webhook = events::Webhook {
        id,
        url: spec.url,
        types: spec.types,
        sandbox: spec.sandbox,
        sealed_secret,
        description: spec.description,
    };
    let event = EventId::new();
    let saved = WebhookSaved { webhook, cursor: old.cursor };
    gateway.publish(&caller, None, event, gateway.clock().now(), saved).await?;
    let state = shown(&gateway, &caller.tenant, id, |state| state.is_none_or(|state| state.epoch == event));
    let state = state.await?.ok_or_else(|| no_webhook(id))?;
    Ok(Json(answer(&gateway, state, spec.secret.map(|secret| secret.reveal())).await?))
}
