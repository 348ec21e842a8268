//! Gets the events of one exec into the stream of events: complete, in order, many to a message.
//!
//! While nothing is under way an event is sent at once; while a message is under way what comes is gathered. Full
//! messages may overlap. A message that fails is sent again with all that followed it, from the first that failed on
//! (go-back-N): the recorder takes nothing out of order, so in the record nothing is missing and nothing is twice.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use events::{DecodeError, Event, Log, PendingPublish, PublishError, encode_frame};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

/// A message of this many bytes is full.
const FULL: usize = 480 << 10;
/// How many messages may be under way.
const WINDOW: usize = 6;
/// How long to wait before sending again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How much of the two streams has been published up to some point: stdout, stderr.
pub type Offsets = [u64; 2];

struct Message {
    first: Event,
    count: usize,
    batch: Bytes,
    /// What the agent may forget once this message is durable.
    offsets: Offsets,
    terminal: bool,
    pending: Option<BoxFuture<'static, Result<(), PublishError>>>,
}

/// A message that has become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    pub offsets: Offsets,
    pub terminal: bool,
}

pub struct Outbox {
    log: Log,
    gathered: BytesMut,
    first: Option<Event>,
    count: usize,
    offsets: Offsets,
    terminal: bool,
    under_way: VecDeque<Message>,
    /// Told apart by the server: a message that is sent again must not be taken for the one that was lost.
    attempt: u32,
    /// When to send again, and why that is needed. Kept here so that a cancelled wait loses neither.
    retry_at: Option<Instant>,
    failure: Option<PublishError>,
}

impl Outbox {
    pub fn new(log: &Log, offsets: Offsets) -> Self {
        Self {
            log: log.clone(),
            gathered: BytesMut::new(),
            first: None,
            count: 0,
            offsets,
            terminal: false,
            under_way: VecDeque::new(),
            attempt: 0,
            retry_at: None,
            failure: None,
        }
    }

    /// Whether more may be gathered. What does not fit stays with the agent, and in the end blocks the process.
    pub fn has_room(&self) -> bool {
        self.gathered.len() < FULL
    }

    pub fn is_idle(&self) -> bool {
        self.under_way.is_empty() && self.first.is_none()
    }

    pub fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// Adds an event; `offsets` is what has been gathered of the streams with it.
    pub fn add(&mut self, event: Event, offsets: Offsets, terminal: bool) -> Result<(), DecodeError> {
        encode_frame(&event.to_frame()?, &mut self.gathered);
        self.count += 1;
        self.offsets = offsets;
        self.terminal |= terminal;
        self.first.get_or_insert(event);
        Ok(())
    }

    /// Sends what is gathered, if now is the time for it.
    pub async fn send_if_due(&mut self) {
        let full = !self.has_room() || self.terminal;
        let due =
            self.retry_at.is_none() && (self.under_way.is_empty() || (full && self.under_way.len() < WINDOW));
        if due {
            self.send().await;
        }
    }

    async fn send(&mut self) {
        let Some(first) = self.first.take() else { return };
        let batch = self.gathered.split().freeze();
        let count = std::mem::take(&mut self.count);
        let pending = start(&self.log, &first, count, self.attempt, batch.clone()).await;
        self.under_way.push_back(Message {
            first,
            count,
            batch,
            offsets: self.offsets,
            terminal: self.terminal,
            pending: Some(pending),
        });
    }

    /// Waits until the oldest message is durable, however long that takes. Cancel safe.
    pub async fn durable(&mut self) -> Option<Durable> {
        loop {
            if let Some(at) = self.retry_at {
                tokio::time::sleep_until(at).await;
                self.send_again().await;
                self.retry_at = None;
            }
            let message = self.under_way.front_mut()?;
            let outcome = match message.pending.as_mut() {
                Some(pending) => pending.await,
                None => Err(PublishError::Full),
            };
            match outcome {
                Ok(()) => {
                    let message = self.under_way.pop_front()?;
                    return Some(Durable {
                        offsets: message.offsets,
                        terminal: message.terminal,
                    });
                }
                Err(error) => {
                    tracing::debug!(error = %error, messages = self.under_way.len(), "publishing again");
                    self.retry_at = Some(Instant::now() + RETRY_PAUSE);
                    self.failure = Some(error);
                }
            }
        }
    }

    async fn send_again(&mut self) {
        if let Some(error) = &self.failure {
            self.log.mend(error).await;
        }
        self.attempt += 1;
        for message in &mut self.under_way {
            let (count, batch) = (message.count, message.batch.clone());
            message.pending = Some(start(&self.log, &message.first, count, self.attempt, batch).await);
        }
    }
}

async fn start(
    log: &Log,
    first: &Event,
    count: usize,
    attempt: u32,
    batch: Bytes,
) -> BoxFuture<'static, Result<(), PublishError>> {
    match log.publish_pipelined(first, count, attempt, batch).await {
        Ok(pending) => PendingPublish::wait(pending).boxed(),
        Err(error) => std::future::ready(Err(error)).boxed(),
    }
}
