//! `POST /webhooks`

use api_types::{Webhook, WebhookRequest};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use events::{EventId, WebhookId, WebhookSaved};
use secrets::WebhookSecret;

use super::spec::Spec;
use super::{answer, no_webhook, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::JsonBody;
use crate::gateway::Gateway;

/// Makes a webhook. The answer has the signing secret, which is never shown again.
#[utoipa::path(
    post,
    path = "/webhooks",
    tag = "webhooks",
    request_body = WebhookRequest,
    responses(
        (status = 201, description = "The webhook, with its secret", body = Webhook),
        (status = 400, description = "A field is wrong, or the address may not be called", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
        (status = 409, description = "The tenant has as many as it may have", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(gateway): State<Gateway>,
    caller: Caller,
    JsonBody(request): JsonBody<WebhookRequest>,
) -> Result<(StatusCode, Json<Webhook>), ApiError> {
    let limits = &gateway.config().webhooks;
    let head = gateway.feed().head();
    let spec = Spec::read(request, limits, head)?;
    spec.check_sandbox(&gateway, &caller).await?;
    if gateway.view().webhooks(&caller.tenant).len() >= limits.max_per_tenant {
        return Err(ApiError::conflict(format!("there are {} webhooks already", limits.max_per_tenant)));
    }
    let secret = match spec.secret {
        Some(secret) => secret,
        None => WebhookSecret::random().map_err(ApiError::internal)?,
    };
    let id = WebhookId::new();
    let webhook = events::Webhook {
        id,
        url: spec.url,
        types: spec.types,
        sandbox: spec.sandbox,
        sealed_secret: seal(&gateway, id, &secret)?,
        description: spec.description,
    };
    let saved = WebhookSaved { webhook, cursor: spec.cursor.unwrap_or(head) };
    gateway.publish(&caller, None, EventId::new(), gateway.clock().now(), saved).await?;
    let state =
        shown(&gateway, &caller.tenant, id, |state| state.is_some()).await?.ok_or_else(|| no_webhook(id))?;
    let webhook = answer(&gateway, state, Some(secret.reveal())).await?;
    Ok((StatusCode::CREATED, Json(webhook)))
}

/// Sealed for this webhook alone.
pub(super) fn seal(gateway: &Gateway, id: WebhookId, secret: &WebhookSecret) -> Result<String, ApiError> {
    let key = &gateway.config().master_key;
    key.seal_text("webhook", &id.to_string(), &secret.reveal()).map_err(ApiError::internal)
}
