//! Both directions of an open link, the same at both ends.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::{Client, Subject, Subscriber};
use bytes::Bytes;
use futures::StreamExt;

use super::frame::LinkFrame;
use super::{LinkError, PIECE, WINDOW};

/// How long the other end may be silent while we wait for it.
pub(super) const SILENCE: Duration = Duration::from_secs(60);

/// How often a quiet end shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// A subscription for what comes, a subject for what goes, and the windows of both.
pub(super) struct Duplex {
    client: Client,
    inbox: Subscriber,
    pub(super) peer: Subject,
    sent: u64,
    credited: u64,
    received: u64,
    consumed: u64,
    pending: VecDeque<Bytes>,
    /// What came that is neither a piece nor credit.
    last: Option<LinkFrame>,
}

impl Duplex {
    pub(super) fn new(client: Client, inbox: Subscriber, peer: Subject) -> Self {
        Self {
            client,
            inbox,
            peer,
            sent: 0,
            credited: 0,
            received: 0,
            consumed: 0,
            pending: VecDeque::new(),
            last: None,
        }
    }

    pub(super) const fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) async fn say(&self, frame: &LinkFrame) -> Result<(), LinkError> {
        self.client.publish(self.peer.clone(), frame.encode()).await.map_err(not_sent)
    }

    /// Sends bytes, as far as the window allows at a time.
    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<(), LinkError> {
        while !bytes.is_empty() {
            while self.sent.saturating_sub(self.credited) >= WINDOW {
                if self.last.is_some() {
                    return Err(self.interrupted());
                }
                self.hear().await?;
            }
            let piece = bytes.split_to(bytes.len().min(PIECE));
            let len = piece.len() as u64;
            self.say(&LinkFrame::Piece { offset: self.sent, bytes: piece }).await?;
            self.sent += len;
        }
        Ok(())
    }

    /// The next bytes, or `None` when something else came: see [`Self::last`]. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<Option<Bytes>, LinkError> {
        loop {
            if let Some(piece) = self.pending.front() {
                let consumed = self.consumed + piece.len() as u64;
                // Half a window at a time: enough to keep the sender going, few messages.
                if self.received - consumed <= WINDOW / 2 {
                    self.say(&LinkFrame::Credit { offset: consumed }).await?;
                }
                // Taken only now: whoever stops waiting for the message above has not been given it.
                self.consumed = consumed;
                return Ok(self.pending.pop_front());
            }
            if self.last.is_some() {
                return Ok(None);
            }
            self.hear().await?;
        }
    }

    /// Waits for a frame that is neither a piece nor credit; pieces that come before it are an error.
    pub(super) async fn last(&mut self) -> Result<LinkFrame, LinkError> {
        self.last_within(SILENCE).await
    }

    /// The same, where the other end shows that it lives more often than that.
    pub(super) async fn last_within(&mut self, silence: Duration) -> Result<LinkFrame, LinkError> {
        loop {
            if let Some(frame) = self.last.take() {
                return Ok(frame);
            }
            if !self.pending.is_empty() {
                return Err(LinkError::Broken("bytes where none belong"));
            }
            self.hear_within(silence).await?;
        }
    }

    /// What has come that is neither a piece nor credit, if anything has.
    pub(super) fn first(&mut self) -> Result<Option<LinkFrame>, LinkError> {
        match self.last.take() {
            None if !self.pending.is_empty() => Err(LinkError::Broken("bytes where none belong")),
            frame => Ok(frame),
        }
    }

    pub(super) const fn received(&self) -> u64 {
        self.received
    }

    /// Shows that this end lives, and listens whether the other one does: that it consumes what it was sent.
    pub(super) async fn watch(&mut self) -> LinkError {
        loop {
            if self.last.is_some() {
                return self.interrupted();
            }
            match tokio::time::timeout(KEEP_ALIVE, self.hear()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error,
                Err(_) if self.credited < self.sent => return LinkError::Broken("the other end is silent"),
                Err(_) => {
                    if let Err(error) = self.keep_alive().await {
                        return error;
                    }
                }
            }
        }
    }

    /// Says again what is known, so that the other end hears something.
    pub(super) async fn keep_alive(&self) -> Result<(), LinkError> {
        self.say(&LinkFrame::Credit { offset: self.consumed }).await
    }

    fn interrupted(&mut self) -> LinkError {
        match self.last.take() {
            Some(LinkFrame::Fault(fault)) => LinkError::Refused(fault),
            Some(LinkFrame::Cancel) => LinkError::Broken("the other end gave up"),
            _ => LinkError::Broken("the other end ended it early"),
        }
    }

    pub(super) async fn hear(&mut self) -> Result<(), LinkError> {
        self.hear_within(SILENCE).await
    }

    pub(super) async fn hear_within(&mut self, silence: Duration) -> Result<(), LinkError> {
        let message = tokio::time::timeout(silence, self.inbox.next())
            .await
            .map_err(|_| LinkError::Broken("the other end is silent"))?
            .ok_or(LinkError::Broken("the connection to NATS is closed"))?;
        if message.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
            return Err(LinkError::Unreachable);
        }
        if let Some(reply) = message.reply {
            self.peer = reply;
        }
        match LinkFrame::decode(message.payload) {
            Some(LinkFrame::Piece { offset, bytes }) => {
                if offset != self.received {
                    return Err(LinkError::Broken("bytes were lost on the way"));
                }
                self.received += bytes.len() as u64;
                if self.received - self.consumed > WINDOW + PIECE as u64 {
                    return Err(LinkError::Broken("the other end ignores the window"));
                }
                self.pending.push_back(bytes);
            }
            Some(LinkFrame::Credit { offset }) => self.credited = self.credited.max(offset.min(self.sent)),
            Some(LinkFrame::Working) => {}
            Some(frame) => self.last = Some(frame),
            None => return Err(LinkError::Broken("a message that cannot be read")),
        }
        Ok(())
    }
}

impl Duplex {
    /// Tells the other end that nobody waits any more, without waiting for anything.
    pub(super) fn cancel(&self) {
        let (client, peer) = (self.client.clone(), self.peer.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = client.publish(peer, LinkFrame::Cancel.encode()).await {
                    // The other end notices by the silence, a minute later.
                    tracing::debug!(error = %error, "the end of a stream was not told");
                }
            });
        }
    }
}

/// Why a message is not on its way. The reason goes to the log: the other end cannot be told.
pub(super) fn not_sent(error: async_nats::PublishError) -> LinkError {
    tracing::warn!(error = %error, "a message of the link was not sent");
    LinkError::Broken("a message could not be sent over NATS")
}
