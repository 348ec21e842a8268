//! Gets the events of one exec into the stream of events: in order, many to a message.
//!
//! A short batch is offered to the recorder first: what it records at once needs no place in the stream. What it does not is sent
//! there, before all that follows it.
//!
//! While nothing is under way an event is sent at once; while a message is under way what comes is gathered, and output
//! that directly follows output becomes one event with it. Full
//! messages may overlap. A message that fails is sent again with all that followed it, from the first that failed on
//! (go-back-N): the recorder takes nothing out of order, so in the record nothing is missing and nothing is twice.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use events::{DecodeError, Event, encode_frame};
use tokio::time::Instant;
use transport::{ExecProgress, PublishError};

use super::merge::Growing;
use super::way::{Pending, Way};

/// A message of this many bytes is full.
const FULL: usize = 480 << 10;
/// How many messages may be under way.
const WINDOW: usize = 6;
/// How long the transport may be known to take nothing before it is tried all the same.
const WRITABLE: Duration = Duration::from_secs(5);
/// How often the recorder is shown the oldest message while the transport takes nothing.
const OFFER_AGAIN: Duration = Duration::from_millis(250);
/// How long to wait before sending again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

struct Message {
    first: Event,
    batch: Bytes,
    /// How far the exec is recorded when this is.
    recorded: ExecProgress,
    pending: Pending,
}

/// A batch that the recorder was shown.
struct Offered {
    first: Event,
    batch: Bytes,
    /// How far the exec is recorded when this is.
    recorded: ExecProgress,
    until: Instant,
}

pub struct Outbox<W> {
    way: W,
    gathered: BytesMut,
    /// The newest event, while more may come to it.
    growing: Option<Growing>,
    first: Option<Event>,
    /// Somebody waits for what was added last: no reason to wait for more.
    last: bool,
    /// Nobody else publishes anything about this exec that has to stay before it.
    may_offer: bool,
    offered: Option<Offered>,
    under_way: VecDeque<Message>,
    /// When to send again, and why that is needed. Kept here so that a cancelled wait loses neither.
    retry_at: Option<Instant>,
    failure: Option<PublishError>,
}

impl<W: Way> Outbox<W> {
    pub fn new(way: &W) -> Self {
        Self {
            way: way.clone(),
            gathered: BytesMut::new(),
            growing: None,
            first: None,
            last: false,
            may_offer: false,
            offered: None,
            under_way: VecDeque::new(),
            retry_at: None,
            failure: None,
        }
    }

    /// Whether more may be gathered. What does not fit stays with the agent, and in the end blocks the process.
    pub fn has_room(&self) -> bool {
        self.gathered.len() + self.growing.as_ref().map_or(0, Growing::len) < FULL
    }

    pub fn is_under_way(&self) -> bool {
        self.offered.is_some() || !self.under_way.is_empty()
    }

    /// Hears how far the exec is recorded. `true`: something is that was under way, and needs no other proof that it is safe.
    pub fn note(&mut self, progress: ExecProgress) -> bool {
        let before = self.under_way.len();
        let offered = self.offered.take_if(|offered| progress.covers(&offered.recorded)).is_some();
        while self.under_way.front().is_some_and(|message| progress.covers(&message.recorded)) {
            self.under_way.pop_front();
        }
        if self.under_way.is_empty() {
            self.retry_at = None;
        }
        offered || self.under_way.len() < before
    }

    /// Adds an event.
    pub fn add(&mut self, event: Event, last: bool) -> Result<(), DecodeError> {
        self.last |= last;
        let event = match &mut self.growing {
            Some(growing) => match growing.join(event) {
                Ok(()) => return Ok(()),
                Err(event) => *event,
            },
            None => event,
        };
        self.close()?;
        match Growing::new(event) {
            Ok(growing) => self.growing = Some(growing),
            Err(event) => self.encode(*event)?,
        }
        Ok(())
    }

    /// Nothing more comes to the newest event.
    fn close(&mut self) -> Result<(), DecodeError> {
        match self.growing.take() {
            Some(growing) => self.encode(growing.finish()),
            None => Ok(()),
        }
    }

    fn encode(&mut self, event: Event) -> Result<(), DecodeError> {
        encode_frame(&event.to_frame()?, &mut self.gathered);
        self.first.get_or_insert(event);
        Ok(())
    }

    /// Sends what is gathered, if now is the time for it. With it all that was added is sent: then the exec is recorded as far as
    /// `recorded` says. `may_offer`: nobody else publishes anything about this exec that has to stay before it.
    pub async fn send_if_due(&mut self, recorded: ExecProgress, may_offer: bool) {
        self.may_offer = may_offer;
        let full = !self.has_room() || self.last;
        if self.offered.is_some() {
            if !full || self.first.is_none() && self.growing.is_none() {
                return;
            }
            self.insist().await;
        }
        let due =
            self.retry_at.is_none() && (self.under_way.is_empty() || (full && self.under_way.len() < WINDOW));
        if !due {
            return;
        }
        if let Err(error) = self.close() {
            tracing::error!(error = %error, "output cannot be encoded");
        }
        self.last = false;
        let Some(first) = self.first.take() else { return };
        let batch = self.gathered.split().freeze();
        if may_offer
            && self.under_way.is_empty()
            && let Some(until) = self.way.offer(&batch).await
        {
            self.offered = Some(Offered { first, batch, recorded, until });
            return;
        }
        let pending = self.way.begin(&first, batch.clone()).await;
        self.under_way.push_back(Message { first, batch, recorded, pending });
    }

    /// Sends what was offered through the stream.
    async fn insist(&mut self) {
        let Some(Offered { first, batch, .. }) = &self.offered else { return };
        // Sent twice if this is cancelled here: the recorder takes it once.
        let pending = self.way.begin(first, batch.clone()).await;
        if let Some(Offered { first, batch, recorded, .. }) = self.offered.take() {
            self.under_way.push_back(Message { first, batch, recorded, pending });
        }
    }

    /// Waits until the oldest message is durable, however long that takes. Cancel safe. That it is recorded is heard by
    /// [`Self::note`].
    pub async fn durable(&mut self) {
        loop {
            if let Some(offered) = &self.offered {
                tokio::time::sleep_until(offered.until).await;
                self.way.offered_in_vain();
                self.insist().await;
            }
            if let Some(at) = self.retry_at {
                tokio::time::sleep_until(at).await;
                self.until_worth_sending(at + WRITABLE).await;
                self.send_again().await;
                self.retry_at = None;
            }
            let Some(message) = self.under_way.front_mut() else {
                return;
            };
            match (&mut message.pending).await {
                Ok(()) => {
                    self.under_way.pop_front();
                    return;
                }
                Err(error) => {
                    tracing::debug!(error = %error, messages = self.under_way.len(), "publishing again");
                    self.retry_at = Some(Instant::now() + RETRY_PAUSE);
                    self.failure = Some(error);
                }
            }
        }
    }

    /// As long as the transport is known to take nothing, sending again only makes more of it. The recorder may be well all the
    /// same, and what it records needs no transport.
    async fn until_worth_sending(&mut self, end: Instant) {
        while self.way.takes_nothing() && Instant::now() < end {
            if self.may_offer
                && let Some(oldest) = self.under_way.front()
            {
                let _ = self.way.offer(&oldest.batch).await;
            }
            self.way.until_writable(OFFER_AGAIN).await;
        }
    }

    async fn send_again(&mut self) {
        if let Some(error) = &self.failure {
            self.way.mend(error).await;
        }
        for message in &mut self.under_way {
            message.pending = self.way.begin(&message.first, message.batch.clone()).await;
        }
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
