use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    Aggregate, Category, Event, EventData, EventId, Fields, Key, Position, TenantId, Webhook, WebhookEvent,
};

/// What the log says about one webhook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookState {
    /// What it is.
    pub webhook: Webhook,
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The newest `webhook.saved` or `webhook.rewound`: what a delivery that began before it says counts no more.
    pub epoch: EventId,
    /// Everything up to here was delivered, or did not match.
    pub cursor: Position,
    /// When something was last known to be delivered.
    pub delivered_at: Option<DateTime<Utc>>,
    /// Where it stands.
    pub phase: WebhookPhase,
}

/// Where a webhook stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum WebhookPhase {
    /// What comes is delivered.
    Active,
    /// An event could not be delivered, and is tried again.
    Failing {
        /// Since when this has been so.
        since: DateTime<Utc>,
        /// What went wrong last.
        failure: WebhookFailure,
        /// When it is tried again.
        retry_at: DateTime<Utc>,
    },
    /// It failed for too long. Nothing is sent.
    Suspended {
        /// Since when this has been so.
        since: DateTime<Utc>,
        /// What went wrong last.
        failure: WebhookFailure,
    },
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookFailure {
    /// The event that could not be delivered.
    pub position: Position,
    /// How often it was tried.
    pub attempts: u32,
    /// One sentence.
    pub message: String,
}

impl WebhookState {
    /// The state after `event`, given the state before it. `None` before it was made and after it was deleted. What does not
    /// fit changes nothing, so a part of the log may be applied again, from any event on to its end.
    pub fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        let EventData::Webhook(data) = &event.data else { return state };
        if let (None, WebhookEvent::Saved(saved)) = (&state, data) {
            return Some(Self {
                webhook: saved.webhook.clone(),
                tenant: event.tenant.clone(),
                created_at: event.time,
                epoch: event.id,
                cursor: saved.cursor,
                delivered_at: None,
                phase: WebhookPhase::Active,
            });
        }
        let mut state = state?;
        if data.webhook() != state.webhook.id || event.tenant != state.tenant {
            return Some(state);
        }
        match data {
            WebhookEvent::Saved(saved) => {
                state.webhook = saved.webhook.clone();
                state.begin(event);
            }
            WebhookEvent::Deleted(_) => return None,
            WebhookEvent::Rewound(rewound) => {
                state.cursor = rewound.cursor;
                state.begin(event);
            }
            WebhookEvent::Advanced(advanced) if advanced.epoch == state.epoch => {
                state.cursor = state.cursor.max(advanced.cursor);
                if advanced.delivered > 0 {
                    state.delivered_at = Some(event.time);
                }
                if state.failure().is_some_and(|failure| failure.position <= advanced.cursor) {
                    state.phase = WebhookPhase::Active;
                }
            }
            WebhookEvent::Failed(failed) if failed.epoch == state.epoch => {
                let since = match &state.phase {
                    WebhookPhase::Failing { since, .. } => *since,
                    WebhookPhase::Active | WebhookPhase::Suspended { .. } => event.time,
                };
                let failure = WebhookFailure {
                    position: failed.position,
                    attempts: failed.attempts,
                    message: failed.message.clone(),
                };
                state.phase = WebhookPhase::Failing { since, failure, retry_at: failed.retry_at };
            }
            WebhookEvent::Suspended(suspended) if suspended.epoch == state.epoch => {
                let failure = WebhookFailure {
                    position: suspended.position,
                    attempts: suspended.attempts,
                    message: suspended.message.clone(),
                };
                state.phase = WebhookPhase::Suspended { since: event.time, failure };
            }
            // Of an older delivery, or a test, which is beside the deliveries.
            WebhookEvent::Advanced(_)
            | WebhookEvent::Failed(_)
            | WebhookEvent::Suspended(_)
            | WebhookEvent::Pinged(_)
            | WebhookEvent::PingEnded(_) => {}
        }
        Some(state)
    }

    /// Deliveries begin anew: what those before say counts no more.
    fn begin(&mut self, event: &Event) {
        self.epoch = event.id;
        self.phase = WebhookPhase::Active;
    }

    /// What went wrong last, while it has not been mended.
    pub const fn failure(&self) -> Option<&WebhookFailure> {
        match &self.phase {
            WebhookPhase::Active => None,
            WebhookPhase::Failing { failure, .. } | WebhookPhase::Suspended { failure, .. } => Some(failure),
        }
    }
}

impl Aggregate for WebhookState {
    const KIND: &'static str = "webhook";
    const TAKES: &'static [Category] = &[Category::Webhook];

    fn changed_by(event: &Event) -> Option<Key> {
        let EventData::Webhook(said) = &event.data else { return None };
        // A test is beside the deliveries.
        let beside = matches!(said, WebhookEvent::Pinged(_) | WebhookEvent::PingEnded(_));
        (!beside).then(|| said.webhook().into())
    }

    fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        Self::apply(state, event)
    }

    fn key(&self) -> Key {
        self.webhook.id.into()
    }

    fn fields(&self) -> Fields {
        let status = match &self.phase {
            WebhookPhase::Active => "active",
            WebhookPhase::Failing { .. } => "failing",
            WebhookPhase::Suspended { .. } => "suspended",
        };
        Fields::new(self.tenant.clone(), status)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        Actor, WebhookAdvanced, WebhookDeleted, WebhookFailed, WebhookId, WebhookRewound, WebhookSaved,
        WebhookSuspended,
    };

    const ID: WebhookId = WebhookId::from_bytes([1; 16]);

    fn event(number: u8, data: impl Into<EventData>) -> Event {
        Event {
            id: EventId::from_bytes([number; 16]),
            tenant: TenantId::default_tenant(),
            sandbox: None,
            time: Utc.timestamp_opt(1_750_000_000 + i64::from(number), 0).single().unwrap(),
            actor: Actor::Webhooks,
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        }
    }

    fn saved(number: u8, url: &str) -> Event {
        let webhook = Webhook {
            id: ID,
            url: url.to_owned(),
            types: Vec::new(),
            sandbox: None,
            sealed_secret: String::new(),
            description: String::new(),
        };
        event(number, WebhookSaved { webhook, cursor: Position(5) })
    }

    fn epoch(number: u8) -> EventId {
        EventId::from_bytes([number; 16])
    }

    fn advanced(number: u8, of: u8, cursor: u64) -> Event {
        event(
            number,
            WebhookAdvanced { webhook: ID, epoch: epoch(of), cursor: Position(cursor), delivered: 1 },
        )
    }

    fn failed(number: u8, of: u8, position: u64, attempts: u32) -> Event {
        let retry_at = event(number + 1, WebhookDeleted { webhook: ID }).time;
        let (epoch, position, message) = (epoch(of), Position(position), "refused".to_owned());
        event(number, WebhookFailed { webhook: ID, epoch, position, attempts, message, retry_at })
    }

    fn suspended(number: u8, of: u8, position: u64) -> Event {
        let (epoch, position, message) = (epoch(of), Position(position), "refused".to_owned());
        event(number, WebhookSuspended { webhook: ID, epoch, position, attempts: 9, message })
    }

    fn rewound(number: u8, cursor: u64) -> Event {
        event(number, WebhookRewound { webhook: ID, cursor: Position(cursor) })
    }

    fn fold(events: &[Event]) -> Option<WebhookState> {
        events.iter().fold(None, WebhookState::apply)
    }

    #[test]
    fn a_new_one_begins_at_its_cursor_and_a_change_keeps_it() {
        let state = fold(&[saved(1, "a"), advanced(2, 1, 9), saved(3, "b")]).unwrap();
        assert_eq!((state.cursor, state.webhook.url.as_str(), state.epoch), (Position(9), "b", epoch(3)));
        assert_eq!(state.delivered_at, Some(advanced(2, 1, 9).time));
    }

    #[test]
    fn an_advance_of_an_older_delivery_does_not_undo_a_rewind() {
        let state = fold(&[saved(1, "a"), advanced(2, 1, 90), rewound(3, 10), advanced(4, 1, 91)]).unwrap();
        assert_eq!(state.cursor, Position(10));
        let state = WebhookState::apply(Some(state), &advanced(5, 3, 11)).unwrap();
        assert_eq!(state.cursor, Position(11));
    }

    #[test]
    fn failing_since_the_first_failure_until_something_is_delivered() {
        let state = fold(&[saved(1, "a"), failed(2, 1, 6, 1), failed(3, 1, 6, 2)]).unwrap();
        let WebhookPhase::Failing { since, failure, .. } = &state.phase else { panic!("{state:?}") };
        assert_eq!((*since, failure.attempts), (failed(2, 1, 6, 1).time, 2));
        // What was delivered before the failure and is said after it mends nothing.
        let state = WebhookState::apply(Some(state), &advanced(4, 1, 5)).unwrap();
        assert!(state.failure().is_some());
        let state = WebhookState::apply(Some(state), &advanced(5, 1, 6)).unwrap();
        assert_eq!(state.phase, WebhookPhase::Active);
    }

    #[test]
    fn a_suspended_one_wakes_when_it_is_moved_or_saved() {
        let before = [saved(1, "a"), suspended(2, 1, 6)];
        assert!(matches!(fold(&before).unwrap().phase, WebhookPhase::Suspended { .. }));
        for waker in [rewound(3, 2), saved(3, "b")] {
            let state = WebhookState::apply(fold(&before), &waker).unwrap();
            assert_eq!(state.phase, WebhookPhase::Active);
        }
    }

    #[test]
    fn what_is_deleted_or_anothers_is_left_alone() {
        assert_eq!(fold(&[saved(1, "a"), event(2, WebhookDeleted { webhook: ID }), advanced(3, 1, 9)]), None);
        let foreign = Event { tenant: "blue".parse().unwrap(), ..event(2, WebhookDeleted { webhook: ID }) };
        assert!(fold(&[saved(1, "a"), foreign]).is_some());
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let number = || 1..6u8;
        prop_oneof![
            number().prop_map(|n| saved(n, "a")),
            (number(), number(), 0..20u64).prop_map(|(n, of, cursor)| advanced(n, of, cursor)),
            (number(), number(), 0..20u64, 0..9u32).prop_map(|(n, of, at, times)| failed(n, of, at, times)),
            (number(), number(), 0..20u64).prop_map(|(n, of, at)| suspended(n, of, at)),
            (number(), 0..20u64).prop_map(|(n, cursor)| rewound(n, cursor)),
            number().prop_map(|n| event(n, WebhookDeleted { webhook: ID })),
        ]
    }

    proptest! {
        #[test]
        fn any_events_fold_and_a_cursor_moves_back_only_when_it_is_moved(
            events in prop::collection::vec(any_event(), 0..30),
        ) {
            let mut state: Option<WebhookState> = None;
            for event in &events {
                let before = state.clone();
                state = WebhookState::apply(state, event);
                if let (Some(before), Some(after)) = (before, &state) {
                    let moved = matches!(event.data, EventData::Webhook(WebhookEvent::Rewound(_)));
                    prop_assert!(moved || after.cursor >= before.cursor);
                }
            }
        }
    }
}
