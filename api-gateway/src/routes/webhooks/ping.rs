//! `POST /webhooks/{id}/ping`

use std::time::Duration;

use api_types::WebhookPing;
use axum::Json;
use axum::extract::State;
use events::{EventData, EventId, WebhookEvent, WebhookPingEnded, WebhookPinged};
use feed::{After, FeedError, Topic};

use super::find;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::WebhookPath;
use crate::gateway::Gateway;

/// How long the receiver is waited for: a little longer than the deliverer waits by default.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends the receiver a `webhook.pinged` event, once, past everything that waits, also when the webhook is suspended; waits for
/// what comes of it.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/ping",
    tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")),
    responses(
        (status = 200, description = "What came of it", body = WebhookPing),
        (status = 404, description = "No such webhook", body = ErrorBody),
        (status = 503, description = "Nobody delivers webhooks at the moment", body = ErrorBody),
    )
)]
pub(crate) async fn ping(
    State(gateway): State<Gateway>,
    caller: Caller,
    WebhookPath(id): WebhookPath,
) -> Result<Json<WebhookPing>, ApiError> {
    find(&gateway, &caller, id)?;
    let event = EventId::new();
    let mut reader = gateway.feed().subscribe(Topic::All, After::Now);
    gateway.publish(&caller, None, event, gateway.clock().now(), WebhookPinged { webhook: id }).await?;
    let ended = async {
        loop {
            if let EventData::Webhook(WebhookEvent::PingEnded(ended)) = &reader.next().await?.event.data
                && ended.ping == event
            {
                return Ok::<WebhookPingEnded, FeedError>(ended.clone());
            }
        }
    };
    let ended = match tokio::time::timeout(PATIENCE, ended).await {
        Ok(ended) => ended.map_err(ApiError::unavailable)?,
        Err(_) => return Err(ApiError::unavailable("nobody delivers webhooks: no answer to a ping")),
    };
    Ok(Json(WebhookPing {
        event: event.to_string(),
        delivered: ended.message.is_none(),
        status: ended.status,
        message: ended.message,
    }))
}
