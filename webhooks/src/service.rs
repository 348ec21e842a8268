//! Holds the lease, knows all webhooks, and keeps a courier for each that is not suspended.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use events::{
    Actor, Clock, Event, EventData, EventId, Position, SandboxId, TenantId, Webhook, WebhookEvent, WebhookId,
    WebhookPhase, WebhookPingEnded, WebhookState,
};
use feed::{After, Feed, FeedError, Recorded, Topic};
use record::EventFilter;
use secrets::{MasterKey, WebhookSecret};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::{Lease, Log};

use crate::config::WebhooksConfig;
use crate::courier::{Courier, publish};
use crate::message::Message;
use crate::sender::Sender;

const LEASE: &str = "webhooks";
/// How long after the death of one process another one takes over.
const LEASE_LIFETIME: Duration = Duration::from_secs(5);
/// How long couriers may take to say their last words.
const LAST_WORDS: Duration = Duration::from_secs(3);
const STORE_PAUSE: Duration = Duration::from_millis(500);
/// How long the client of a ping waits, and how far back in the log one is looked for.
const PING_PATIENCE: chrono::TimeDelta = chrono::TimeDelta::seconds(20);
const PINGS_WITHIN: u64 = 1_000;
const PINGS_AT_ONCE: u32 = 256;

/// What couriers share.
pub(crate) struct Shared {
    pub config: WebhooksConfig,
    pub log: Log,
    pub feed: Feed,
    pub sender: Sender,
    pub clock: Arc<dyn Clock>,
    master_key: MasterKey,
    all: Arc<Semaphore>,
    tenants: DashMap<TenantId, Arc<Semaphore>>,
}

/// The right to have a request under way.
pub(crate) struct Turn {
    _tenant: Option<OwnedSemaphorePermit>,
    _all: Option<OwnedSemaphorePermit>,
}

impl Shared {
    /// Waits for a turn. A tenant whose receivers are all slow has a quarter of the turns at most.
    pub async fn turn(&self, tenant: &TenantId) -> Turn {
        let share = (self.config.concurrency / 4).max(1);
        let of_tenant = Arc::clone(
            &*self.tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(Semaphore::new(share))),
        );
        // The tenant's own first: whoever waits there holds nothing that others need. Neither is ever closed.
        Turn {
            _tenant: of_tenant.acquire_owned().await.ok(),
            _all: Arc::clone(&self.all).acquire_owned().await.ok(),
        }
    }

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

    /// A fact of ours.
    pub fn event(&self, tenant: TenantId, data: EventData) -> Event {
        Event {
            id: EventId::new(),
            tenant,
            sandbox: None,
            time: self.clock.now(),
            actor: Actor::Webhooks,
            cause: None,
            request_id: None,
            traceparent: None,
            data,
        }
    }
}

/// Delivers for all webhooks, as long as no other process does.
pub struct Webhooks {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Webhooks {
    /// A deliverer. It does nothing until it runs.
    pub fn new(
        config: WebhooksConfig,
        log: Log,
        feed: Feed,
        master_key: MasterKey,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, rustls::Error> {
        let shared = Shared {
            sender: Sender::new(&config)?,
            all: Arc::new(Semaphore::new(config.concurrency.max(1))),
            tenants: DashMap::new(),
            config,
            log,
            feed,
            clock,
            master_key,
        };
        Ok(Self { shared: Arc::new(shared), stop })
    }

    /// Works until it is told to stop.
    pub async fn run(self) {
        loop {
            let lease = tokio::select! {
                () = self.stop.cancelled() => return,
                lease = self.shared.log.take_lease(LEASE, LEASE_LIFETIME) => lease,
            };
            tracing::info!("delivering webhooks");
            self.serve(lease).await;
        }
    }

    /// Delivers until the lease is lost or we stop.
    async fn serve(&self, mut lease: Lease) {
        let mut desk = Desk {
            shared: Arc::clone(&self.shared),
            webhooks: feed::Webhooks::default(),
            couriers: HashMap::new(),
            of_tenant: HashMap::new(),
            duty: self.stop.child_token(),
            tasks: TaskTracker::new(),
        };
        let lost = tokio::select! {
            () = lease.hold() => true,
            () = desk.work() => false,
        };
        desk.duty.cancel();
        desk.tasks.close();
        let _ = timeout(LAST_WORDS, desk.tasks.wait()).await;
        if lost {
            tracing::warn!("another process delivers webhooks now, or NATS was away for too long");
        } else {
            lease.release().await;
        }
    }
}

/// Which events a courier is woken for.
struct Running {
    stop: CancellationToken,
    wake: Arc<Notify>,
    sandbox: Option<SandboxId>,
    types: HashSet<&'static str>,
}

/// Sees every event, and knows who wants it.
struct Desk {
    shared: Arc<Shared>,
    webhooks: feed::Webhooks,
    couriers: HashMap<WebhookId, Running>,
    of_tenant: HashMap<TenantId, HashSet<WebhookId>>,
    duty: CancellationToken,
    tasks: TaskTracker,
}

impl Desk {
    async fn work(&mut self) {
        let duty = self.duty.clone();
        tokio::select! {
            () = duty.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&mut self) {
        let position = loop {
            match feed::Webhooks::load(&**self.shared.feed.store()).await {
                Ok((position, webhooks)) => {
                    self.webhooks = webhooks;
                    break position;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot load the webhooks; trying again"
                    );
                    sleep(STORE_PAUSE).await;
                }
            }
        };
        let mut reader = self.shared.feed.subscribe(Topic::All, After::Position(position));
        let all: Vec<WebhookState> = self.webhooks.iter().cloned().collect();
        all.iter().for_each(|state| self.begin(state));
        self.answer_waiting_pings(position).await;
        loop {
            match reader.next().await {
                Ok(recorded) => self.take(&recorded),
                Err(FeedError::Store(error)) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot follow the log; trying again"
                    );
                    sleep(STORE_PAUSE).await;
                }
                Err(FeedError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, recorded: &Recorded) {
        let event = &recorded.event;
        let EventData::Webhook(said) = &event.data else {
            self.wake(event);
            return;
        };
        let id = said.webhook();
        self.webhooks.apply(event);
        match said {
            WebhookEvent::Saved(_) | WebhookEvent::Rewound(_) => {
                if let Some(state) = self.webhooks.get(id).cloned() {
                    self.end(&state.tenant, id);
                    self.begin(&state);
                }
            }
            WebhookEvent::Deleted(_) | WebhookEvent::Suspended(_) => {
                let stands = self.webhooks.get(id).is_some_and(|state| !is_suspended(state));
                if !stands {
                    self.end(&event.tenant, id);
                }
            }
            WebhookEvent::Pinged(_) => self.ping(id, recorded),
            WebhookEvent::Advanced(_) | WebhookEvent::Failed(_) | WebhookEvent::PingEnded(_) => {}
        }
    }

    fn wake(&self, event: &Event) {
        let Some(ids) = self.of_tenant.get(&event.tenant) else { return };
        let name = event.data.type_name();
        for running in ids.iter().filter_map(|id| self.couriers.get(id)) {
            let wanted = running.types.contains(name)
                && running.sandbox.is_none_or(|sandbox| event.sandbox == Some(sandbox));
            if wanted {
                running.wake.notify_one();
            }
        }
    }

    fn begin(&mut self, state: &WebhookState) {
        let retry_at = match &state.phase {
            WebhookPhase::Suspended { .. } => return,
            WebhookPhase::Failing { retry_at, .. } => Some(*retry_at),
            WebhookPhase::Active => None,
        };
        let (wake, stop) = (Arc::new(Notify::new()), self.duty.child_token());
        let Some(courier) = Courier::new(Arc::clone(&self.shared), state, Arc::clone(&wake)) else {
            return;
        };
        self.tasks.spawn(courier.run(retry_at, stop.clone()));
        let types = state.webhook.wanted_types().into_iter().collect();
        let running = Running { stop, wake, sandbox: state.webhook.sandbox, types };
        self.couriers.insert(state.webhook.id, running);
        self.of_tenant.entry(state.tenant.clone()).or_default().insert(state.webhook.id);
    }

    fn end(&mut self, tenant: &TenantId, id: WebhookId) {
        if let Some(running) = self.couriers.remove(&id) {
            running.stop.cancel();
        }
        if let Some(ids) = self.of_tenant.get_mut(tenant) {
            ids.remove(&id);
            if ids.is_empty() {
                self.of_tenant.remove(tenant);
                self.shared.tenants.remove_if(tenant, |_, turns| Arc::strong_count(turns) == 1);
            }
        }
    }

    /// A ping that came while nobody was there is answered late, as long as its client may still wait.
    async fn answer_waiting_pings(&self, head: Position) {
        let types = ["webhook.pinged", "webhook.ping_ended"].map(str::to_owned).to_vec();
        let filter = EventFilter { types, ..EventFilter::default() };
        let after = Position(head.0.saturating_sub(PINGS_WITHIN));
        // A test that gets no answer is made again by whoever wants it.
        let frames = self.shared.feed.store().read(&filter, after, PINGS_AT_ONCE).await.unwrap_or_default();
        let not_before = self.shared.clock.now() - PING_PATIENCE;
        let mut waiting: Vec<Recorded> = Vec::new();
        for frame in frames.into_iter().filter(|frame| frame.position <= head) {
            let Ok(event) = frame.decode() else { continue };
            if let EventData::Webhook(WebhookEvent::PingEnded(ended)) = &event.data {
                waiting.retain(|ping| ping.event.id != ended.ping);
            } else if event.time >= not_before {
                waiting.push(Recorded { frame, event });
            }
        }
        for ping in &waiting {
            if let Some(id) = ping.event.data.webhook() {
                self.ping(id, ping);
            }
        }
    }

    /// Sends a ping once, past everything that waits, and says what came of it.
    fn ping(&self, id: WebhookId, recorded: &Recorded) {
        let Some(state) = self.webhooks.get(id).filter(|state| state.tenant == recorded.event.tenant) else {
            return;
        };
        let Some(message) = Message::new(&recorded.frame) else { return };
        let Some(secret) = self.shared.secret(&state.webhook) else { return };
        let (shared, url, tenant) =
            (Arc::clone(&self.shared), state.webhook.url.clone(), state.tenant.clone());
        let (ping, duty) = (recorded.event.id, self.duty.clone());
        self.tasks.spawn(async move {
            let _turn = shared.turn(&tenant).await;
            let now = shared.clock.now();
            let sent = tokio::select! {
                () = duty.cancelled() => return,
                sent = shared.sender.send(&url, &secret, &message, now) => sent,
            };
            let (status, message) = match sent {
                Ok(status) => (Some(status), None),
                Err(refusal) => (refusal.status, Some(refusal.message)),
            };
            let ended = WebhookPingEnded { webhook: id, ping, status, message };
            let event = shared.event(tenant, ended.into());
            publish(&shared, id, event).await;
        });
    }
}

const fn is_suspended(state: &WebhookState) -> bool {
    matches!(state.phase, WebhookPhase::Suspended { .. })
}
