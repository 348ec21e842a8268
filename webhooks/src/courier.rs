//! One webhook: where it stands, and what is to be done for it next. No I/O and no clock of its own.
//!
//! It reads on from its cursor, a page at a time, and delivers one event after the other. What it says of itself (how far it is,
//! that something was refused) goes out between two deliveries.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{
    Event, EventData, EventId, Frame, Position, SandboxId, TenantId, WebhookAdvanced, WebhookFailed,
    WebhookId, WebhookPhase, WebhookState, WebhookSuspended,
};
use reactor::{Next, Turn};
use record::EventFilter;
use secrets::WebhookSecret;

use crate::backoff;
use crate::sender::Refusal;

/// How many events are read at once. They stay in memory while the first of them is tried.
pub const PAGE: u32 = 16;
/// How often it is said how far a webhook is: what a crash repeats at most.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How often one that nothing is for looks at the record, so that its cursor does not stay behind for ever.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How far the cursor of one that nothing is for may be behind before that is said. It must stay well above the number of
/// webhooks: what each of them says is an event that all the others pass.
const STRIDE: u64 = 10_000;
/// No pause is longer, whatever the log says of the next attempt.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What is to be done for a webhook.
#[derive(Debug, Clone)]
pub enum Errand {
    /// Events after its cursor are to be read.
    Read(Arc<EventFilter>, Position),
    /// This is to be sent.
    Deliver(Address, Frame),
    /// This is to be said in the log, once.
    Say(EventData),
    /// The same, until it is durable.
    SaySurely(EventData),
}

/// Where a webhook's requests go, and what signs them.
#[derive(Debug, Clone)]
pub struct Address {
    pub url: Arc<str>,
    pub secret: Arc<WebhookSecret>,
}

/// What came of an errand.
#[derive(Debug)]
pub enum Report {
    /// What there was. The head is from before it was read: nothing that is wanted lies between the last frame and it.
    Read { frames: Vec<Frame>, head: Position },
    /// The events after the cursor are not kept any more.
    Trimmed { floor: Position },
    /// The receiver took it.
    Delivered,
    /// It did not.
    Refused(Refusal),
    /// It cannot be sent by this build, now or ever.
    Unsendable,
    /// It is in the log, or (`false`) it may not be.
    Said(bool),
    /// It is in the log.
    SaidSurely,
}

/// Delivers for one webhook.
pub struct Courier {
    id: WebhookId,
    tenant: TenantId,
    epoch: EventId,
    address: Address,
    filter: Arc<EventFilter>,
    types: HashSet<&'static str>,
    sandbox: Option<SandboxId>,
    give_up_after: Duration,
    /// Everything up to here is done with.
    cursor: Position,
    /// What of that the log knows.
    told: Position,
    /// When that was last said, on the boot clock; at first, when it began.
    told_at: Option<Duration>,
    /// Delivered since then.
    delivered: u64,
    /// How many of those are being said.
    saying: Option<(Position, u64)>,
    failing: Option<Failing>,
    /// Not before then is it tried again.
    retry: Option<Retry>,
    /// What was read and is not done with.
    page: VecDeque<Frame>,
    /// Where the cursor goes when the page is done with.
    page_ends_at: Position,
    /// Something for it may have been recorded.
    wanted: bool,
    /// When it is looked all the same, on the boot clock.
    look_at: Duration,
    /// It is to be said at once how far it is.
    must_tell: bool,
    /// An attempt that failed, to be said.
    failed: Option<WebhookFailed>,
    suspension: Option<Suspension>,
}

#[derive(Debug, Clone, Copy)]
struct Failing {
    since: DateTime<Utc>,
    attempts: u32,
}

#[derive(Debug, Clone, Copy)]
enum Retry {
    /// As the log says it.
    Said(DateTime<Utc>),
    /// On the boot clock.
    At(Duration),
}

enum Suspension {
    /// It is to be said.
    Due(WebhookSuspended),
    /// It is said: nothing more is sent.
    Stands,
}

impl Courier {
    /// One for this webhook, as the log has it. `None`: it is suspended.
    pub fn new(state: &WebhookState, secret: WebhookSecret, give_up_after: Duration) -> Option<Self> {
        let (failing, retry) = match &state.phase {
            WebhookPhase::Suspended { .. } => return None,
            WebhookPhase::Failing { since, failure, retry_at } => {
                let failing = Failing { since: *since, attempts: failure.attempts };
                (Some(failing), Some(Retry::Said(*retry_at)))
            }
            WebhookPhase::Active => (None, None),
        };
        let webhook = &state.webhook;
        let types = webhook.wanted_types();
        Some(Self {
            id: webhook.id,
            tenant: state.tenant.clone(),
            epoch: state.epoch,
            address: Address { url: webhook.url.as_str().into(), secret: Arc::new(secret) },
            filter: Arc::new(EventFilter {
                subject: None,
                tenant: Some(state.tenant.clone()),
                sandbox: webhook.sandbox,
                exec: None,
                types: types.iter().map(|name| (*name).to_owned()).collect(),
            }),
            types: types.into_iter().collect(),
            sandbox: webhook.sandbox,
            give_up_after,
            cursor: state.cursor,
            told: state.cursor,
            told_at: None,
            delivered: 0,
            saying: None,
            failing,
            retry,
            page: VecDeque::new(),
            page_ends_at: Position::ZERO,
            wanted: true,
            look_at: Duration::ZERO,
            must_tell: false,
            failed: None,
            suspension: None,
        })
    }

    pub const fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Which delivery this is: what belongs to another one counts no more.
    pub const fn epoch(&self) -> EventId {
        self.epoch
    }

    /// Whether this event is the first that is for it since it looked.
    pub fn is_news(&mut self, event: &Event) -> bool {
        let is_for_it = self.types.contains(event.data.type_name())
            && self.sandbox.is_none_or(|sandbox| event.sandbox == Some(sandbox));
        is_for_it && !std::mem::replace(&mut self.wanted, true)
    }

    /// What is to be done next.
    pub fn decide(&mut self, turn: &mut Turn<'_>) -> Next<Errand> {
        let now = turn.since_boot();
        if let Some(failed) = self.failed.take() {
            return Next::Act(Errand::Say(failed.into()));
        }
        if std::mem::take(&mut self.must_tell) {
            return Next::Act(self.say_how_far(now));
        }
        match &self.suspension {
            Some(Suspension::Stands) => return Next::Rest,
            Some(Suspension::Due(suspended)) => {
                return Next::Act(Errand::SaySurely(suspended.clone().into()));
            }
            None => {}
        }
        let told_at = *self.told_at.get_or_insert(now);
        let tell_at = (self.delivered > 0).then(|| told_at + TELL_EVERY);
        if tell_at.is_some_and(|at| now >= at) {
            return Next::Act(self.say_how_far(now));
        }
        let wait = |until: Duration| {
            Next::Wait(tell_at.map_or(until, |tell_at| until.min(tell_at)).saturating_sub(now))
        };
        if let Some(Retry::Said(at)) = self.retry {
            self.retry = Some(Retry::At(now + turn.left(at).min(LONGEST_PAUSE)));
        }
        if let Some(Retry::At(at)) = self.retry {
            if now < at {
                return wait(at);
            }
            self.retry = None;
        }
        if let Some(frame) = self.page.front() {
            return Next::Act(Errand::Deliver(self.address.clone(), frame.clone()));
        }
        if self.wanted || now >= self.look_at {
            // Whatever is recorded from now on may not be in what is read.
            self.wanted = false;
            return Next::Act(Errand::Read(Arc::clone(&self.filter), self.cursor));
        }
        if self.delivered == 0 && self.is_far_behind() {
            return Next::Act(self.say_how_far(now));
        }
        wait(self.look_at)
    }

    /// Takes in what came of an errand of this delivery; `None`: it failed, and will be tried again.
    pub fn settle(&mut self, report: Option<Report>, turn: &mut Turn<'_>) {
        match report {
            // What was to be read may still be there, and what was to be said is said the next time.
            None => self.wanted = true,
            Some(Report::Read { frames, head }) => self.read(frames, head, turn.since_boot()),
            Some(Report::Trimmed { floor }) => {
                tracing::warn!(
                    webhook.id = %self.id,
                    cursor = %self.cursor,
                    floor = %floor,
                    "a webhook was behind what is kept: it goes on with what is left"
                );
                self.cursor = self.cursor.max(floor);
                self.wanted = true;
            }
            Some(Report::Delivered) => {
                self.delivered += 1;
                // The log says that it fails: that must not stand a moment longer than it is true.
                self.must_tell |= self.failing.take().is_some();
                self.turn_over();
            }
            Some(Report::Unsendable) => self.turn_over(),
            Some(Report::Refused(refusal)) => self.refused(refusal, turn),
            Some(Report::Said(is_durable)) => self.said(is_durable),
            Some(Report::SaidSurely) => self.suspension = Some(Suspension::Stands),
        }
    }

    fn read(&mut self, frames: Vec<Frame>, head: Position, now: Duration) {
        let at_end = frames.len() < PAGE as usize;
        self.page = frames.into();
        // A page that is not full ends at the present: nothing that is wanted lies between it and the head.
        self.page_ends_at = if at_end { head } else { Position::ZERO };
        self.wanted |= !at_end;
        self.look_at = now + LOOK_EVERY;
        if self.page.is_empty() {
            self.cursor = self.cursor.max(self.page_ends_at);
        }
    }

    /// The first of the page is done with.
    fn turn_over(&mut self) {
        if let Some(frame) = self.page.pop_front() {
            self.cursor = self.cursor.max(frame.position);
        }
        if self.page.is_empty() {
            self.cursor = self.cursor.max(self.page_ends_at);
        }
    }

    fn refused(&mut self, refusal: Refusal, turn: &Turn<'_>) {
        let Some(position) = self.page.front().map(|frame| frame.position) else { return };
        let now = turn.now();
        let failing = self.failing.get_or_insert(Failing { since: now, attempts: 0 });
        failing.attempts = failing.attempts.saturating_add(1);
        let Failing { since, attempts } = *failing;
        let tried_for = (now - since).to_std().unwrap_or_default();
        let is_final = refusal.is_final();
        let (webhook, epoch, message) = (self.id, self.epoch, refusal.message);
        if is_final || tried_for >= self.give_up_after {
            tracing::warn!(webhook.id = %webhook, attempts, message, "a webhook is suspended");
            let suspended = WebhookSuspended { webhook, epoch, position, attempts, message };
            self.suspension = Some(Suspension::Due(suspended));
            // First how far it came.
            self.must_tell = self.delivered > 0;
            return;
        }
        let pause = backoff::pause(attempts, fastrand::f64(), refusal.retry_after);
        // What is left of the time is worth a last attempt.
        let pause = pause.min(self.give_up_after - tried_for);
        self.retry = Some(Retry::At(turn.since_boot() + pause));
        self.failed =
            Some(WebhookFailed { webhook, epoch, position, attempts, message, retry_at: now + pause });
    }

    fn is_far_behind(&self) -> bool {
        self.cursor.0.saturating_sub(self.told.0) >= STRIDE
    }

    fn say_how_far(&mut self, now: Duration) -> Errand {
        self.told_at = Some(now);
        self.saying = Some((self.cursor, self.delivered));
        Errand::Say(self.how_far().into())
    }

    fn how_far(&self) -> WebhookAdvanced {
        let (webhook, epoch) = (self.id, self.epoch);
        WebhookAdvanced { webhook, epoch, cursor: self.cursor, delivered: self.delivered }
    }

    fn said(&mut self, is_durable: bool) {
        // What could not be said is said later: until then, a crash repeats a little more.
        if let Some((cursor, delivered)) = self.saying.take()
            && is_durable
        {
            (self.told, self.delivered) = (cursor, self.delivered - delivered);
        }
    }

    /// How far it is, if the log does not know that yet.
    pub fn last_words(&self) -> Option<WebhookAdvanced> {
        (self.delivered > 0 || self.is_far_behind()).then(|| self.how_far())
    }
}
