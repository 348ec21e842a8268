//! Sandboxes as they were: the same fold that made what they are now, stopped earlier.

use std::collections::HashMap;

use api_types::Sandbox;
use chrono::{DateTime, Utc};
use events::{DestroyReason, Event, Position, SandboxEvent, SandboxId, SandboxPhase, SandboxState, TenantId};
use record::{EventFilter, EventStore, StoreError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::shown_at;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::moment::Moment;

const PAGE: u32 = 500;

/// When.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AtQuery {
    /// As it was then: after the event of this position, or at this time (RFC 3339). Now, when absent.
    pub at: Option<String>,
}

impl AtQuery {
    /// The moment that is asked for, if any.
    pub fn read(&self) -> Result<Option<Moment>, ApiError> {
        self.at.as_deref().map(|text| Moment::read(text, "at")).transpose()
    }
}

/// A sandbox as it was.
#[derive(Debug, Serialize, ToSchema)]
pub struct PastSandbox {
    /// What it was.
    #[serde(flatten)]
    pub sandbox: Sandbox,
    /// The last event that made it so.
    pub position: u64,
    /// When that happened.
    pub changed_at: DateTime<Utc>,
    /// Why it was destroyed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<DestroyReason>,
}

/// A sandbox, now or then.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Shown {
    /// As it is.
    Now(Sandbox),
    /// As it was.
    Then(PastSandbox),
}

/// A state, and the last event that changed something about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Past {
    pub state: SandboxState,
    pub position: Position,
    pub changed_at: DateTime<Utc>,
}

impl Past {
    /// The same as clients see it.
    pub fn into_answer(self, moment: Moment, gateway: &Gateway) -> PastSandbox {
        // A deadline had passed, or not, by the clock of then.
        let now = match moment {
            // What has not come yet is not known: then it is now.
            Moment::Time(time) => time.min(gateway.clock().now()),
            Moment::Position(_) => self.changed_at,
        };
        let (_, reason) = end(&self.state);
        PastSandbox {
            sandbox: shown_at(&self.state, now, gateway.config().preview_domain.as_deref()),
            position: self.position.0,
            changed_at: self.changed_at,
            reason,
        }
    }

    fn apply(past: Option<Self>, position: Position, event: &Event) -> Option<Self> {
        let (before, seen) = match past {
            Some(past) => (Some(past.state), Some((past.position, past.changed_at))),
            None => (None, None),
        };
        let unchanged = before.clone();
        let state = SandboxState::apply(before, event)?;
        let (position, changed_at) = match seen {
            Some(seen) if unchanged.as_ref() == Some(&state) => seen,
            Some(_) | None => (position, event.time),
        };
        Some(Self { state, position, changed_at })
    }
}

/// The tenant's sandbox after the event at `last`; `None` before it was asked for.
pub async fn one(
    store: &dyn EventStore,
    tenant: &TenantId,
    id: SandboxId,
    last: Position,
) -> Result<Option<Past>, StoreError> {
    let filter = EventFilter { tenant: Some(tenant.clone()), sandbox: Some(id), ..changes() };
    let mut past = None;
    fold(store, &filter, last, |position, event| {
        past = Past::apply(past.take(), position, event);
    })
    .await?;
    Ok(past)
}

/// All sandboxes of the tenant that had not ended after the event at `last`. Holds those only, however many there were.
pub async fn live(
    store: &dyn EventStore,
    tenant: &TenantId,
    last: Position,
) -> Result<Vec<Past>, StoreError> {
    let filter = EventFilter { tenant: Some(tenant.clone()), ..changes() };
    let mut live: HashMap<SandboxId, Past> = HashMap::new();
    fold(store, &filter, last, |position, event| {
        let Some(id) = event.sandbox else { return };
        if let Some(past) = Past::apply(live.remove(&id), position, event)
            && !past.state.is_terminal()
        {
            live.insert(id, past);
        }
    })
    .await?;
    Ok(live.into_values().collect())
}

/// The types that the fold of a sandbox looks at.
fn changes() -> EventFilter {
    let types = SandboxEvent::WORDS.iter().map(|word| word.name.to_owned());
    EventFilter { types: types.collect(), ..EventFilter::default() }
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
            Err(StoreError::Trimmed { floor })
                if after < floor && floor <= last && filter.sandbox.is_none() =>
            {
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

/// When it ended, and why it was destroyed.
pub const fn end(state: &SandboxState) -> (Option<DateTime<Utc>>, Option<DestroyReason>) {
    match state.phase {
        SandboxPhase::Destroyed { reason, at } => (Some(at), Some(reason)),
        SandboxPhase::Failed { at, .. } => (Some(at), None),
        SandboxPhase::Requested
        | SandboxPhase::Starting { .. }
        | SandboxPhase::Running { .. }
        | SandboxPhase::Unhealthy { .. }
        | SandboxPhase::Lost { .. } => (None, None),
    }
}
