//! `POST /webhooks/{id}/ping`

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use events::{EventData, EventId, WebhookEvent, WebhookPingEnded, WebhookPinged};
use feed::{After, FeedError, Topic};
use serde::Serialize;
use utoipa::ToSchema;

use super::find;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::WebhookPath;
use crate::gateway::Gateway;

/// How long the receiver is waited for: a little longer than the deliverer waits by default.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of a test.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ping {
    /// The event that was sent.
    #[schema(value_type = String)]
    pub event: EventId,
    /// Whether the receiver took it.
    pub delivered: bool,
    /// What it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Sends the receiver a `webhook.pinged` event, once, past everything that waits, also when the webhook is suspended; waits for
/// what comes of it.
#[utoipa::path(
    post,
    path = "/webhooks/{id}/ping",
    tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")),
    responses(
        (status = 200, description = "What came of it", body = Ping),
        (status = 404, description = "No such webhook", body = ErrorBody),
        (status = 503, description = "Nobody delivers webhooks at the moment", body = ErrorBody),
    )
)]
pub(crate) async fn ping(
    State(gateway): State<Gateway>,
    caller: Caller,
    WebhookPath(id): WebhookPath,
) -> Result<Json<Ping>, ApiError> {
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
    Ok(Json(Ping { event, delivered: ended.message.is_none(), status: ended.status, message: ended.message }))
}
