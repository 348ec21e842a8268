//! All webhooks, as a reactor: sees every event, knows who wants it, and has a courier for each that is not suspended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use events::{Event, EventData, EventId, Position, TenantId, WebhookEvent, WebhookId, WebhookState};
use feed::Recorded;
use reactor::{Effecting, Failure, Limits, Loaded, Next, Reactor, Touched, Turn};
use record::{EventFilter, StoreError};

use crate::config::WebhooksConfig;
use crate::courier::{Address, Courier, Errand, Report};
use crate::errands::{Errands, Ping};
use crate::message::Message;

/// How long the client of a ping waits, and how far back in the log one is looked for.
const PING_PATIENCE: TimeDelta = TimeDelta::seconds(20);
const PINGS_WITHIN: u64 = 1_000;
const PINGS_AT_ONCE: u32 = 256;
/// By how much an errand may take longer than a receiver.
const MARGIN: Duration = Duration::from_secs(20);

/// What something is to be done for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A webhook's next event.
    Webhook(WebhookId),
    /// A test, by the event that asks for it: it does not wait for deliveries.
    Ping(EventId),
}

/// Something to be done, of which delivery.
pub enum Effect {
    Errand(TenantId, EventId, Box<Errand>),
    Ping(Box<Ping>),
}

/// What came of it, of which delivery.
pub enum Outcome {
    Report(EventId, Report),
    Pinged,
}

/// All webhooks.
pub struct Desk {
    errands: Arc<Errands>,
    config: WebhooksConfig,
    webhooks: feed::Webhooks,
    couriers: HashMap<WebhookId, Courier>,
    of_tenant: HashMap<TenantId, HashSet<WebhookId>>,
    pings: HashMap<EventId, Ping>,
}

impl Desk {
    pub fn new(errands: Errands, config: WebhooksConfig) -> Self {
        Self {
            errands: Arc::new(errands),
            config,
            webhooks: feed::Webhooks::default(),
            couriers: HashMap::new(),
            of_tenant: HashMap::new(),
            pings: HashMap::new(),
        }
    }

    fn begin(&mut self, state: &WebhookState) {
        let id = state.webhook.id;
        self.end(&state.tenant, id);
        let Some(secret) = self.errands.secret(&state.webhook) else { return };
        let Some(courier) = Courier::new(state, secret, self.config.give_up_after) else { return };
        self.couriers.insert(id, courier);
        self.of_tenant.entry(state.tenant.clone()).or_default().insert(id);
    }

    fn end(&mut self, tenant: &TenantId, id: WebhookId) {
        self.couriers.remove(&id);
        if let Some(ids) = self.of_tenant.get_mut(tenant) {
            ids.remove(&id);
            if ids.is_empty() {
                self.of_tenant.remove(tenant);
            }
        }
    }

    fn wake(&mut self, event: &Event, touched: &mut Touched<Key>) {
        for id in self.of_tenant.get(&event.tenant).into_iter().flatten() {
            if self.couriers.get_mut(id).is_some_and(|courier| courier.is_news(event)) {
                touched.entity(Key::Webhook(*id));
            }
        }
    }

    fn ping(&mut self, id: WebhookId, recorded: &Recorded) -> Option<Key> {
        let state = self.webhooks.get(id).filter(|state| state.tenant == recorded.event.tenant)?;
        let ping = Ping {
            webhook: id,
            tenant: state.tenant.clone(),
            address: Address {
                url: state.webhook.url.as_str().into(),
                secret: Arc::new(self.errands.secret(&state.webhook)?),
            },
            id: recorded.event.id,
            message: Message::new(&recorded.frame)?,
        };
        self.pings.insert(ping.id, ping);
        Some(Key::Ping(recorded.event.id))
    }

    /// The pings that came while nobody was there: they are answered late, as long as their clients may still wait.
    async fn waiting_pings(&self, head: Position) -> Vec<Recorded> {
        let types = ["webhook.pinged", "webhook.ping_ended"].map(str::to_owned).to_vec();
        let filter = EventFilter { types, ..EventFilter::default() };
        let after = Position(head.0.saturating_sub(PINGS_WITHIN));
        // A test that gets no answer is made again by whoever wants it.
        let store = self.errands.feed.store();
        let frames = store.read(&filter, after, PINGS_AT_ONCE).await.unwrap_or_default();
        let not_before = self.errands.clock.now() - PING_PATIENCE;
        let mut waiting: Vec<Recorded> = Vec::new();
        for frame in frames.into_iter().filter(|frame| frame.position <= head) {
            let Ok(event) = frame.decode() else { continue };
            if let EventData::Webhook(WebhookEvent::PingEnded(ended)) = &event.data {
                waiting.retain(|ping| ping.event.id != ended.ping);
            } else if event.time >= not_before {
                waiting.push(Recorded { frame, event });
            }
        }
        waiting
    }
}

#[async_trait]
impl Reactor for Desk {
    type Key = Key;
    type Effect = Effect;
    type Outcome = Outcome;

    fn name(&self) -> &'static str {
        "webhooks"
    }

    /// All: each of them may be wanted by somebody.
    fn types(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn limits(&self) -> Limits {
        let in_flight = self.config.concurrency.max(1);
        Limits {
            in_flight,
            // A tenant whose receivers are all slow has a quarter at most.
            share: (in_flight / 4).max(1),
            patience: self.config.timeout + MARGIN,
            // What a receiver has not answered is sent again by whoever comes next.
            finish: Duration::ZERO,
            ..Limits::default()
        }
    }

    async fn load(&mut self, _: Option<Position>) -> Result<Loaded<Key>, StoreError> {
        let (position, webhooks) = feed::Webhooks::load(&**self.errands.feed.store()).await?;
        self.webhooks = webhooks;
        self.couriers.clear();
        self.of_tenant.clear();
        self.pings.clear();
        let all: Vec<WebhookState> = self.webhooks.iter().cloned().collect();
        all.iter().for_each(|state| self.begin(state));
        let mut keys: Vec<Key> = self.couriers.keys().copied().map(Key::Webhook).collect();
        for ping in self.waiting_pings(position).await {
            keys.extend(ping.event.data.webhook().and_then(|id| self.ping(id, &ping)));
        }
        tracing::info!(webhooks = self.couriers.len(), "delivering webhooks");
        Ok(Loaded { position, keys })
    }

    fn apply(&mut self, recorded: &Recorded, touched: &mut Touched<Key>) {
        let event = &recorded.event;
        let EventData::Webhook(said) = &event.data else {
            self.wake(event, touched);
            return;
        };
        let id = said.webhook();
        self.webhooks.apply(event);
        match said {
            WebhookEvent::Saved(_) | WebhookEvent::Rewound(_) => {
                if let Some(state) = self.webhooks.get(id).cloned() {
                    self.begin(&state);
                    touched.anew(Key::Webhook(id));
                }
            }
            WebhookEvent::Deleted(_) | WebhookEvent::Suspended(_) => {
                let state = self.webhooks.get(id);
                if state.is_none_or(|state| matches!(state.phase, events::WebhookPhase::Suspended { .. })) {
                    self.end(&event.tenant, id);
                    touched.anew(Key::Webhook(id));
                }
            }
            WebhookEvent::Pinged(_) => {
                if let Some(key) = self.ping(id, recorded) {
                    touched.entity(key);
                }
            }
            WebhookEvent::Advanced(_) | WebhookEvent::Failed(_) | WebhookEvent::PingEnded(_) => {}
        }
    }

    fn decide(&mut self, key: &Key, turn: &mut Turn<'_>) -> Next<Effect> {
        match key {
            Key::Webhook(id) => {
                let Some(courier) = self.couriers.get_mut(id) else { return Next::Rest };
                match courier.decide(turn) {
                    Next::Act(errand) => {
                        Next::Act(Effect::Errand(courier.tenant().clone(), courier.epoch(), Box::new(errand)))
                    }
                    Next::Wait(length) => Next::Wait(length),
                    Next::Rest => Next::Rest,
                }
            }
            Key::Ping(id) => match self.pings.get(id) {
                Some(ping) => Next::Act(Effect::Ping(Box::new(ping.clone()))),
                None => Next::Rest,
            },
        }
    }

    fn perform(&self, _: &Key, effect: Effect) -> Effecting<Outcome> {
        let errands = Arc::clone(&self.errands);
        Box::pin(async move {
            match effect {
                Effect::Errand(tenant, epoch, errand) => {
                    Ok(Outcome::Report(epoch, errands.run(tenant, *errand).await?))
                }
                Effect::Ping(ping) => {
                    errands.ping(*ping).await;
                    Ok(Outcome::Pinged)
                }
            }
        })
    }

    fn settle(&mut self, key: &Key, outcome: Result<Outcome, &Failure>, turn: &mut Turn<'_>) {
        match key {
            // It is sent once, whatever came of it.
            Key::Ping(id) => drop(self.pings.remove(id)),
            Key::Webhook(id) => {
                let Some(courier) = self.couriers.get_mut(id) else { return };
                match outcome {
                    // What an older delivery did counts no more.
                    Ok(Outcome::Report(epoch, report)) if epoch == courier.epoch() => {
                        courier.settle(Some(report), turn);
                    }
                    Ok(Outcome::Report(..) | Outcome::Pinged) => {}
                    Err(_) => courier.settle(None, turn),
                }
            }
        }
    }

    fn tenant(&self, key: &Key) -> Option<TenantId> {
        match key {
            Key::Webhook(id) => self.couriers.get(id).map(|courier| courier.tenant().clone()),
            Key::Ping(id) => self.pings.get(id).map(|ping| ping.tenant.clone()),
        }
    }

    /// How far each is.
    fn farewell(&mut self) -> Vec<(Key, Effect)> {
        let couriers = self.couriers.iter();
        let words = couriers.filter_map(|(id, courier)| {
            let errand = Box::new(Errand::Say(courier.last_words()?.into()));
            Some((Key::Webhook(*id), Effect::Errand(courier.tenant().clone(), courier.epoch(), errand)))
        });
        words.collect()
    }
}
