//! Things of which there are few, all of them in memory.

use std::collections::HashMap;

use events::{Aggregate, Event, FoundBy, Key, Kind, Position, Registry, Slot, TenantId};
use record::{EventStore, StoreError};

/// All things of one kind that have not ended.
#[derive(Debug)]
pub struct Held {
    kind: Kind,
    things: HashMap<Key, Slot>,
}

impl Held {
    /// None yet.
    pub fn none(kind: Kind) -> Self {
        Self { kind, things: HashMap::new() }
    }

    /// What the log has made of them up to a position.
    pub async fn load(store: &dyn EventStore, kind: Kind) -> Result<(Position, Self), StoreError> {
        let (position, things) = store.live_slots(&kind).await?;
        Ok((position, Self { kind, things: things.into_iter().collect() }))
    }

    /// Those of all kinds of which there are few.
    pub async fn load_all(
        store: &dyn EventStore,
        registry: &Registry,
    ) -> Result<HashMap<&'static str, Self>, StoreError> {
        let mut all = HashMap::new();
        for kind in registry.kinds().iter().filter(|kind| kind.found_by == FoundBy::Category) {
            all.insert(kind.name, Self::load(store, *kind).await?.1);
        }
        Ok(all)
    }

    /// Takes in an event. Those that are about something else change nothing.
    pub fn apply(&mut self, event: &Event) {
        let Some(key) = self.kind.changed_by(event) else { return };
        let mut slot = self.things.remove(&key).unwrap_or_else(|| self.kind.empty());
        slot.apply(event);
        if slot.fields().is_some_and(|fields| !fields.ended) {
            self.things.insert(key, slot);
        }
    }

    /// One of them.
    pub fn get<A: Aggregate>(&self, key: &Key) -> Option<&A> {
        self.things.get(key)?.state()
    }

    /// All of them, in no order.
    pub fn iter<A: Aggregate>(&self) -> impl Iterator<Item = &A> {
        self.things.values().filter_map(Slot::state)
    }

    /// A tenant's, by their keys.
    pub fn of<A: Aggregate>(&self, tenant: &TenantId) -> Vec<A> {
        let mut own: Vec<(&Key, &A)> = self
            .things
            .iter()
            .filter_map(|(key, slot)| Some((key, slot.state::<A>()?)))
            .filter(|(_, state)| state.fields().tenant == *tenant)
            .collect();
        own.sort_by_key(|(key, _)| *key);
        own.into_iter().map(|(_, state)| state.clone()).collect()
    }
}
