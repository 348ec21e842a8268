//! One webhook: reads on from its cursor and delivers, one event after the other.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{
    Actor, ErrorChain, Event, EventData, EventId, Frame, Position, TenantId, WebhookAdvanced, WebhookFailed,
    WebhookId, WebhookPhase, WebhookState, WebhookSuspended,
};
use record::{EventFilter, StoreError};
use secrets::WebhookSecret;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::backoff;
use crate::message::Message;
use crate::sender::Refusal;
use crate::service::Shared;

/// How many events are read at once. They stay in memory while the first of them is tried.
const PAGE: u32 = 16;
/// How often it is said how far a webhook is: what a crash repeats at most.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often one that nothing is for looks at the record, so that its cursor does not stay behind for ever.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How far the cursor of one that nothing is for may be behind before that is said. It must stay well above the number of
/// webhooks: what each of them says is an event that all the others pass.
const STRIDE: u64 = 10_000;
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// How long the last words may take when it is stopped.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Delivers for one webhook.
pub struct Courier {
    shared: Arc<Shared>,
    id: WebhookId,
    tenant: TenantId,
    epoch: EventId,
    url: String,
    filter: EventFilter,
    secret: WebhookSecret,
    /// Everything up to here is done with.
    cursor: Position,
    /// What of that the log knows.
    told: Position,
    told_at: Instant,
    /// Delivered since then.
    delivered: u64,
    failing: Option<Failing>,
    wake: Arc<Notify>,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: DateTime<Utc>,
    attempts: u32,
}

/// It is suspended: nothing more is sent.
struct Suspended;

impl Courier {
    /// One for this webhook, as the log has it. `None`: its secret cannot be opened.
    pub fn new(shared: Arc<Shared>, state: &WebhookState, wake: Arc<Notify>) -> Option<Self> {
        let secret = shared.secret(&state.webhook)?;
        let failing = match &state.phase {
            WebhookPhase::Failing { since, failure, .. } => {
                Some(Failing { since: *since, attempts: failure.attempts })
            }
            WebhookPhase::Active | WebhookPhase::Suspended { .. } => None,
        };
        let types = state.webhook.wanted_types().into_iter().map(str::to_owned).collect();
        Some(Self {
            shared,
            id: state.webhook.id,
            tenant: state.tenant.clone(),
            epoch: state.epoch,
            url: state.webhook.url.clone(),
            filter: EventFilter {
                tenant: Some(state.tenant.clone()),
                sandbox: state.webhook.sandbox,
                exec: None,
                types,
            },
            secret,
            cursor: state.cursor,
            told: state.cursor,
            told_at: Instant::now(),
            delivered: 0,
            failing,
            wake,
        })
    }

    /// Works until it is stopped or suspended. `retry_at`: not before then.
    pub async fn run(mut self, retry_at: Option<DateTime<Utc>>, stop: CancellationToken) {
        let work = async {
            if let Some(at) = retry_at {
                let wait = (at - self.shared.clock.now()).to_std().unwrap_or_default();
                sleep(wait.min(Duration::from_secs(3600))).await;
            }
            self.work().await;
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = work => {}
        }
        // Also after a rewind, where it counts no more: it says of which delivery it speaks.
        let _ = timeout(LAST_WORDS, self.tell()).await;
    }

    async fn work(&mut self) {
        loop {
            let head = self.shared.feed.head();
            let frames = match self.shared.feed.store().read(&self.filter, self.cursor, PAGE).await {
                Ok(frames) => frames,
                Err(StoreError::Trimmed { floor }) => {
                    tracing::warn!(
                        webhook.id = %self.id,
                        cursor = %self.cursor,
                        floor = %floor,
                        "a webhook was behind what is kept: it goes on with what is left"
                    );
                    self.cursor = self.cursor.max(floor);
                    continue;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        webhook.id = %self.id,
                        "cannot read for a webhook; trying again"
                    );
                    sleep(STORE_PAUSE).await;
                    continue;
                }
            };
            let at_end = frames.len() < PAGE as usize;
            for frame in &frames {
                if let Err(Suspended) = self.deliver(frame).await {
                    return;
                }
                self.cursor = frame.position;
                if self.told_at.elapsed() >= TELL_EVERY {
                    self.tell().await;
                }
            }
            if at_end {
                // The head was read first: nothing that is wanted can lie between the last one and it.
                self.cursor = self.cursor.max(head);
                self.rest().await;
            }
        }
    }

    /// Waits until there may be something.
    async fn rest(&mut self) {
        let look = Instant::now() + LOOK_EVERY;
        if self.delivered == 0 && self.cursor.0 - self.told.0 >= STRIDE {
            self.tell().await;
        }
        let wake = Arc::clone(&self.wake);
        let woken = wake.notified();
        tokio::pin!(woken);
        loop {
            let due = if self.delivered > 0 { self.told_at + TELL_EVERY } else { look };
            tokio::select! {
                () = &mut woken => return,
                () = sleep_until(due) => {}
            }
            if self.delivered == 0 {
                return;
            }
            self.tell().await;
        }
    }

    /// Sends one event until it is taken.
    async fn deliver(&mut self, frame: &Frame) -> Result<(), Suspended> {
        let Some(message) = Message::new(frame) else {
            tracing::error!(event.position = %frame.position, "a recorded event has no header that can be sent");
            return Ok(());
        };
        loop {
            let refusal = match self.attempt(&message).await {
                Ok(()) => {
                    self.delivered += 1;
                    if self.failing.take().is_some() {
                        // The log says that it fails: that must not stand a moment longer than it is true.
                        self.cursor = frame.position;
                        self.tell().await;
                    }
                    return Ok(());
                }
                Err(refusal) => refusal,
            };
            let now = self.shared.clock.now();
            let failing = self.failing.get_or_insert(Failing { since: now, attempts: 0 });
            failing.attempts = failing.attempts.saturating_add(1);
            let failing = *failing;
            let tried_for = (now - failing.since).to_std().unwrap_or_default();
            if refusal.is_final() || tried_for >= self.shared.config.give_up_after {
                self.suspend(frame.position, failing.attempts, refusal.message).await;
                return Err(Suspended);
            }
            let pause = backoff::pause(failing.attempts, fastrand::f64(), refusal.retry_after);
            // What is left of the time is worth a last attempt.
            let pause = pause.min(self.shared.config.give_up_after - tried_for);
            let failed = WebhookFailed {
                webhook: self.id,
                epoch: self.epoch,
                position: frame.position,
                attempts: failing.attempts,
                message: refusal.message,
                retry_at: now + pause,
            };
            let until = Instant::now() + pause;
            self.publish(failed).await;
            sleep_until(until).await;
        }
    }

    async fn attempt(&self, message: &Message) -> Result<(), Refusal> {
        let _turn = self.shared.turn(&self.tenant).await;
        let now = self.shared.clock.now();
        self.shared.sender.send(&self.url, &self.secret, message, now).await.map(|_| ())
    }

    /// Says how far it is. A failure is told later: until then, a crash repeats a little more.
    async fn tell(&mut self) {
        if self.delivered == 0 && self.cursor.0 - self.told.0 < STRIDE {
            return;
        }
        self.told_at = Instant::now();
        let advanced = WebhookAdvanced {
            webhook: self.id,
            epoch: self.epoch,
            cursor: self.cursor,
            delivered: self.delivered,
        };
        if self.publish(advanced).await {
            (self.told, self.delivered) = (self.cursor, 0);
        }
    }

    async fn suspend(&mut self, position: Position, attempts: u32, message: String) {
        self.tell().await;
        tracing::warn!(webhook.id = %self.id, attempts, message, "a webhook is suspended");
        let (webhook, epoch) = (self.id, self.epoch);
        let suspended = EventData::from(WebhookSuspended { webhook, epoch, position, attempts, message });
        while !self.publish(suspended.clone()).await {
            sleep(STORE_PAUSE).await;
        }
    }

    async fn publish(&self, data: impl Into<EventData>) -> bool {
        let event = self.shared.event(self.tenant.clone(), data.into());
        publish(&self.shared, self.id, event).await
    }
}

/// Publishes an event about a webhook, and tells whether it is durable.
pub async fn publish(shared: &Shared, webhook: WebhookId, event: Event) -> bool {
    debug_assert_eq!(event.actor, Actor::Webhooks);
    let published = shared.log.publish(&[event]).await;
    if let Err(error) = &published {
        let error = ErrorChain(error).to_string();
        tracing::warn!(error, webhook.id = %webhook, "cannot say how a webhook is doing");
    }
    published.is_ok()
}
