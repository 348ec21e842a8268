//! Carries out what is to be done: reads, sends, says.

use std::sync::Arc;

use events::{
    Actor, Clock, ErrorChain, Event, EventData, EventId, Position, TenantId, Webhook, WebhookId,
    WebhookPingEnded,
};
use feed::Feed;
use reactor::Failure;
use record::{EventFilter, StoreError};
use secrets::{MasterKey, WebhookSecret};
use transport::{Log, PublishError};

use crate::courier::{Address, Errand, PAGE, Report};
use crate::message::Message;
use crate::sender::Sender;

/// What it takes to carry out errands. Shared by all of them.
pub struct Errands {
    pub log: Log,
    pub feed: Feed,
    pub sender: Sender,
    pub clock: Arc<dyn Clock>,
    pub master_key: MasterKey,
}

/// A test that a client asked for: sent once, past everything that waits.
#[derive(Debug, Clone)]
pub struct Ping {
    pub webhook: WebhookId,
    pub tenant: TenantId,
    pub address: Address,
    /// The event that asks for it, which is what is sent.
    pub id: EventId,
    pub message: Message,
}

impl Errands {
    /// Opens the secret of a webhook.
    pub fn secret(&self, webhook: &Webhook) -> Option<WebhookSecret> {
        let opened = self.master_key.open_text("webhook", &webhook.id.to_string(), &webhook.sealed_secret);
        let secret = opened.ok().and_then(|text| text.parse().ok());
        if secret.is_none() {
            tracing::error!(
                webhook.id = %webhook.id,
                "the secret of a webhook cannot be opened: is this the master key that the gateway has?"
            );
        }
        secret
    }

    /// Carries out an errand of a webhook of this tenant.
    pub async fn run(&self, tenant: TenantId, errand: Errand) -> Result<Report, Failure> {
        match errand {
            Errand::Read(filter, after) => self.read(&filter, after).await,
            Errand::Deliver(address, frame) => {
                let Some(message) = Message::new(&frame) else {
                    tracing::error!(
                        event.position = %frame.position,
                        "a recorded event has no header that can be sent"
                    );
                    return Ok(Report::Unsendable);
                };
                let now = self.clock.now();
                Ok(match self.sender.send(&address.url, &address.secret, &message, now).await {
                    Ok(_) => Report::Delivered,
                    Err(refusal) => Report::Refused(refusal),
                })
            }
            Errand::Say(data) => Ok(Report::Said(self.say(tenant, data).await)),
            Errand::SaySurely(data) => {
                self.publish(tenant, data).await.map_err(|error| Failure::passing(&error))?;
                Ok(Report::SaidSurely)
            }
        }
    }

    async fn read(&self, filter: &EventFilter, after: Position) -> Result<Report, Failure> {
        let head = self.feed.head();
        match self.feed.store().read(filter, after, PAGE).await {
            Ok(frames) => Ok(Report::Read { frames, head }),
            Err(StoreError::Trimmed { floor }) => Ok(Report::Trimmed { floor }),
            Err(error) => Err(Failure::passing(&error)),
        }
    }

    /// Sends a ping, and says what came of it.
    pub async fn ping(&self, ping: Ping) {
        let Ping { webhook, tenant, address, id, message } = ping;
        let now = self.clock.now();
        let (status, message) = match self.sender.send(&address.url, &address.secret, &message, now).await {
            Ok(status) => (Some(status), None),
            Err(refusal) => (refusal.status, Some(refusal.message)),
        };
        self.say(tenant, WebhookPingEnded { webhook, ping: id, status, message }.into()).await;
    }

    /// Says something in the log, and tells whether it is durable.
    pub async fn say(&self, tenant: TenantId, data: EventData) -> bool {
        let webhook = data.webhook();
        let published = self.publish(tenant, data).await;
        if let (Err(error), Some(webhook)) = (&published, webhook) {
            let error = ErrorChain(error).to_string();
            tracing::warn!(error, webhook.id = %webhook, "cannot say how a webhook is doing");
        }
        published.is_ok()
    }

    async fn publish(&self, tenant: TenantId, data: EventData) -> Result<(), PublishError> {
        let event = Event {
            id: EventId::new(),
            tenant,
            sandbox: None,
            time: self.clock.now(),
            actor: Actor::Webhooks,
            cause: None,
            request_id: None,
            traceparent: None,
            data,
        };
        self.log.publish(&[event]).await
    }
}
