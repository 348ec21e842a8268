use async_nats::{HeaderMap, Message};
use bytes::Bytes;

use crate::{Frame, Log, Position, encode_recorded_batch};

/// Marks a message that carries the head of the log instead of events.
const HEAD: &str = "Stacyvm-Head";
/// The largest announcement. One event alone may be larger.
const MAX_ANNOUNCEMENT: usize = 768 << 10;

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
    pub async fn head(&self, position: Position) {
        self.say(Bytes::new(), Some(position)).await;
    }

    async fn say(&self, payload: Bytes, head: Option<Position>) {
        let subject = self.log.subjects().feed();
        let sent = match head {
            Some(position) => {
                let mut headers = HeaderMap::new();
                headers.insert(HEAD, position.to_string());
                self.log.client().publish_with_headers(subject, headers, payload).await
            }
            None => self.log.client().publish(subject, payload).await,
        };
        if let Err(error) = sent {
            tracing::debug!(error = %error, "announcement not sent");
        }
    }
}

pub(super) fn head_of(message: &Message) -> Option<Position> {
    message.headers.as_ref()?.get(HEAD)?.as_str().parse().ok()
}
