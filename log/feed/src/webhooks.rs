//! Webhooks, in memory.

use events::{Event, Kind, Position, WebhookId, WebhookState};
use record::{EventStore, StoreError};

use crate::Held;

/// The webhooks of all tenants.
#[derive(Debug)]
pub struct Webhooks(Held);

impl Default for Webhooks {
    fn default() -> Self {
        Self(Held::none(Kind::of::<WebhookState>()))
    }
}

impl Webhooks {
    /// What the log has made of them up to a position.
    pub async fn load(store: &dyn EventStore) -> Result<(Position, Self), StoreError> {
        let (position, held) = Held::load(store, Kind::of::<WebhookState>()).await?;
        Ok((position, Self(held)))
    }

    /// Takes in an event. Those that are not about webhooks change nothing.
    pub fn apply(&mut self, event: &Event) {
        self.0.apply(event);
    }

    /// One of them.
    pub fn get(&self, id: WebhookId) -> Option<&WebhookState> {
        self.0.get(&id.into())
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &WebhookState> {
        self.0.iter()
    }
}
