use std::time::Duration;

use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use events::{DecodeError, Frame, Position, decode_batch, encode_recorded_batch};
use futures::StreamExt;

use crate::{ListenError, Log, ProbeFailure};

/// Marks a message that carries the head of the log instead of events.
const HEAD: &str = "Stacyvm-Head";
/// Beside it: the age of the oldest message that is not recorded, and how many there are.
const LAG_MS: &str = "Stacyvm-Lag-Ms";
const LAG_MESSAGES: &str = "Stacyvm-Lag-Messages";
/// And why nothing can be recorded, if that is so.
const TROUBLE: &str = "Stacyvm-Trouble";
/// The largest announcement. One event alone may be larger.
const MAX_ANNOUNCEMENT: usize = 768 << 10;

/// How far the recorder is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecorderLag {
    /// At most so old is the oldest event that is not recorded yet.
    pub age: Duration,
    /// Messages that wait.
    pub messages: u64,
    /// What the database does instead of recording them.
    pub trouble: Option<ProbeFailure>,
}

/// What the recorder has said.
#[derive(Debug)]
pub enum Announcement {
    /// These events are recorded, or something that this build cannot read.
    Events(Result<Vec<Frame>, DecodeError>),
    /// The log goes so far, and the recorder is so far behind.
    Head(Position, RecorderLag),
}

/// What the recorder says, on a connection of its own. What is lost on the way has to be noticed by the positions.
pub struct Announcements(Subscriber);

impl Log {
    /// Listens to the recorder. What is announced after this has returned is heard.
    pub async fn announcements(&self) -> Result<Announcements, ListenError> {
        let client = self.feed_client().await.map_err(|_| ListenError)?;
        let subscription = client.subscribe(self.subjects().feed()).await.map_err(|_| ListenError)?;
        client.flush().await.map_err(|_| ListenError)?;
        Ok(Announcements(subscription))
    }
}

impl Announcements {
    /// The next one; `None` when the connection is closed for good. Cancel safe.
    pub async fn next(&mut self) -> Option<Announcement> {
        let message = self.0.next().await?;
        Some(match head_of(&message) {
            Some(head) => Announcement::Head(head, lag_of(&message)),
            None => Announcement::Events(decode_batch(message.payload, true)),
        })
    }
}

/// The recorder's voice: says what has been committed.
#[derive(Clone)]
pub struct Announcer {
    log: Log,
}

impl Announcer {
    /// A voice on this connection.
    pub fn new(log: &Log) -> Self {
        Self { log: log.clone() }
    }

    /// Announces recorded frames. What is lost on the way is filled in from the store by whoever misses it.
    pub async fn batch(&self, frames: &[Frame]) {
        let mut start = 0;
        while start < frames.len() {
            let mut len = 0;
            let count = frames[start..]
                .iter()
                .take_while(|frame| {
                    len += frame.encoded_len() + 8;
                    len <= MAX_ANNOUNCEMENT
                })
                .count()
                .max(1);
            let end = start + count;
            self.say(encode_recorded_batch(&frames[start..end]), None).await;
            start = end;
        }
    }

    /// Announces how far the log goes, so that the loss of the last batch is noticed too.
    /// Says with it how far the recorder is behind.
    pub async fn head(&self, position: Position, lag: RecorderLag) {
        self.say(Bytes::new(), Some((position, lag))).await;
    }

    async fn say(&self, payload: Bytes, head: Option<(Position, RecorderLag)>) {
        let subject = self.log.subjects().feed();
        let sent = match head {
            Some((position, lag)) => {
                let mut headers = HeaderMap::new();
                headers.insert(HEAD, position.to_string());
                headers.insert(LAG_MS, lag.age.as_millis().to_string());
                headers.insert(LAG_MESSAGES, lag.messages.to_string());
                if let Some(trouble) = lag.trouble {
                    headers.insert(TROUBLE, trouble.code());
                }
                self.log.client().publish_with_headers(subject, headers, payload).await
            }
            None => self.log.client().publish(subject, payload).await,
        };
        if let Err(error) = sent {
            tracing::debug!(error = %error, "announcement not sent");
        }
    }
}

/// What the recorder said of how far it is behind. One that says nothing is not.
fn lag_of(message: &Message) -> RecorderLag {
    let number = |name: &str| -> u64 {
        let value = message.headers.as_ref().and_then(|headers| headers.get(name));
        value.and_then(|value| value.as_str().parse().ok()).unwrap_or_default()
    };
    let trouble = message.headers.as_ref().and_then(|headers| headers.get(TROUBLE));
    let trouble = trouble.and_then(|code| ProbeFailure::of_code(code.as_str()));
    RecorderLag { age: Duration::from_millis(number(LAG_MS)), messages: number(LAG_MESSAGES), trouble }
}

fn head_of(message: &Message) -> Option<Position> {
    message.headers.as_ref()?.get(HEAD)?.as_str().parse().ok()
}
