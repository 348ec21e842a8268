//! All webhooks that there are, as the log says.

use std::collections::HashMap;

use events::{Event, Position, WebhookId, WebhookState};
use record::{EventStore, StoreError};

/// The webhooks of all tenants.
#[derive(Debug, Clone, Default)]
pub struct Webhooks(HashMap<WebhookId, WebhookState>);

impl Webhooks {
    /// What the log has made of them up to a position.
    pub async fn load(store: &dyn EventStore) -> Result<(Position, Self), StoreError> {
        let (position, states) = store.webhooks().await?;
        Ok((position, Self(states.into_iter().map(|state| (state.webhook.id, state)).collect())))
    }

    /// Takes in an event. Those that are not about webhooks change nothing.
    pub fn apply(&mut self, event: &Event) {
        let Some(id) = event.data.webhook() else { return };
        if let Some(state) = WebhookState::apply(self.0.remove(&id), event) {
            self.0.insert(id, state);
        }
    }

    /// One of them.
    pub fn get(&self, id: WebhookId) -> Option<&WebhookState> {
        self.0.get(&id)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &WebhookState> {
        self.0.values()
    }
}
