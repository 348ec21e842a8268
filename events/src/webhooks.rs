//! All webhooks that there are, as the log says.

use std::collections::HashMap;

use crate::{
    Event, EventData, EventFilter, EventStore, Frame, Position, StoreError, WebhookId, WebhookState,
};

/// How many events are read at once.
const PAGE: u32 = 512;

/// The webhooks of all tenants.
#[derive(Debug, Clone, Default)]
pub struct Webhooks(HashMap<WebhookId, WebhookState>);

impl Webhooks {
    /// What the log has made of them up to a position.
    pub async fn load(store: &dyn EventStore) -> Result<(Position, Self), StoreError> {
        let head = store.head().await?.position;
        let named = |name: &&&str| name.starts_with("webhook.") && !name.starts_with("webhook.ping");
        let types = EventData::TYPES.iter().filter(named).map(|name| (*name).to_owned()).collect();
        let filter = EventFilter { types, ..EventFilter::default() };
        let mut all = Self::default();
        let mut after = Position::ZERO;
        loop {
            let frames = store.read(&filter, after, PAGE).await?;
            let Some(last) = frames.last() else { return Ok((head.max(after), all)) };
            after = last.position;
            let events = frames.iter().map(Frame::decode);
            events.filter_map(Result::ok).for_each(|event| all.apply(&event));
        }
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
