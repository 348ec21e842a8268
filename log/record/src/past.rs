//! Things as they were: the same fold that made what they are now, stopped earlier.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use events::{Aggregate, Event, Key, Kind, Position, TenantId};

use crate::{EventFilter, EventStore, StoreError};

const PAGE: u32 = 500;

/// A state, and the last event that changed something about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Past<A> {
    /// What it was.
    pub state: A,
    /// The last event that made it so.
    pub position: Position,
    /// When that happened.
    pub changed_at: DateTime<Utc>,
}

impl<A: Aggregate> Past<A> {
    fn apply(past: Option<Self>, position: Position, event: &Event) -> Option<Self> {
        let (before, seen) = match past {
            Some(past) => (Some(past.state), Some((past.position, past.changed_at))),
            None => (None, None),
        };
        let unchanged = before.clone();
        let state = A::apply(before, event)?;
        let (position, changed_at) = match seen {
            Some(seen) if unchanged.as_ref() == Some(&state) => seen,
            Some(_) | None => (position, event.time),
        };
        Some(Self { state, position, changed_at })
    }

    /// The tenant's thing with this key after the event at `last`; `None` before it was made.
    pub async fn one(
        store: &dyn EventStore,
        tenant: &TenantId,
        key: &Key,
        last: Position,
    ) -> Result<Option<Self>, StoreError> {
        let of_thing = EventFilter::of_thing(&Kind::of::<A>(), key);
        let filter = EventFilter { tenant: Some(tenant.clone()), ..of_thing };
        let mut past = None;
        fold(store, &filter, last, |position, event| {
            if A::changed_by(event).as_ref() == Some(key) {
                past = Self::apply(past.take(), position, event);
            }
        })
        .await?;
        Ok(past)
    }

    /// All of the tenant that had not ended after the event at `last`. Holds those only, however many there were.
    pub async fn live(
        store: &dyn EventStore,
        tenant: &TenantId,
        last: Position,
    ) -> Result<Vec<Self>, StoreError> {
        let filter = EventFilter { tenant: Some(tenant.clone()), ..EventFilter::of_kind(&Kind::of::<A>()) };
        let mut live: HashMap<Key, Self> = HashMap::new();
        fold(store, &filter, last, |position, event| {
            let Some(key) = A::changed_by(event) else { return };
            if let Some(past) = Self::apply(live.remove(&key), position, event)
                && !past.state.fields().ended
            {
                live.insert(key, past);
            }
        })
        .await?;
        Ok(live.into_values().collect())
    }
}

async fn fold(
    store: &dyn EventStore,
    filter: &EventFilter,
    last: Position,
    mut step: impl FnMut(Position, &Event) + Send,
) -> Result<(), StoreError> {
    let mut after = Position::ZERO;
    while after < last {
        let frames = match store.read_headers(filter, after, PAGE).await {
            // What was asked for before the floor is not known any more, what came after it is.
            Err(StoreError::Trimmed { floor }) if after < floor && floor <= last && !filter.is_narrow() => {
                after = floor;
                continue;
            }
            frames => frames?,
        };
        for frame in &frames {
            if frame.position > last {
                return Ok(());
            }
            // An event of a newer build changes nothing that this one knows.
            if let Ok(event) = frame.decode() {
                step(frame.position, &event);
            }
        }
        match frames.last() {
            Some(frame) if frames.len() == PAGE as usize => after = frame.position,
            Some(_) | None => return Ok(()),
        }
    }
    Ok(())
}
