//! The sending half of a WebSocket whose client may stop reading.
//!
//! One frame is in the buffer of the WebSocket at a time, so what a slow client costs is bounded; what it has not been
//! sent yet is in the record. A client that takes nothing for too long is closed with 1013 and told where to go on from.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use futures::SinkExt;
use futures::stream::SplitSink;
use tokio::time::Instant;

/// What the buffer of a WebSocket may hold: a frame, and the close after it.
const BUFFER_BYTES: usize = 1 << 20;
/// How often a client is asked whether it lives.
pub const PING: Duration = Duration::from_secs(20);
/// How long it may say nothing at all.
pub const DEAD: Duration = Duration::from_secs(65);
/// How long a client may take to close after the last frame.
pub const CLOSING_PATIENCE: Duration = Duration::from_secs(2);
/// RFC 6455 registry: try again later.
pub const TRY_AGAIN_LATER: u16 = 1013;
/// How long a close waits behind what the client has not read.
const PARTING: Duration = Duration::from_secs(180);

/// Why a frame was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The client took nothing for too long.
    #[error("the client does not read")]
    Blocked,
    /// The connection is broken.
    #[error("the client is gone")]
    Gone,
}

/// Bounds what a client that does not read can cost.
pub fn bounded(upgrade: WebSocketUpgrade) -> WebSocketUpgrade {
    upgrade.write_buffer_size(0).max_write_buffer_size(BUFFER_BYTES)
}

/// Sends frames one by one.
pub struct PatientSink {
    sink: SplitSink<WebSocket, Message>,
    limit: Duration,
}

impl PatientSink {
    /// A sink that gives a client up after `limit` in which it took nothing.
    pub const fn new(sink: SplitSink<WebSocket, Message>, limit: Duration) -> Self {
        Self { sink, limit }
    }

    /// Sends a frame. After [`SendError::Blocked`] the frame still goes out before anything else does: it counts as sent.
    pub async fn send(&mut self, message: Message) -> Result<(), SendError> {
        self.sink.feed(message).await.map_err(|_| SendError::Gone)?;
        match tokio::time::timeout(self.limit, self.sink.flush()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(SendError::Gone),
            Err(_) => Err(SendError::Blocked),
        }
    }

    /// Sends what is still in the buffer, and closes. A client that goes on reading gets all of it.
    pub async fn close(mut self, code: u16, reason: String) {
        let until = Instant::now() + PARTING;
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        let sent = tokio::time::timeout_at(until, self.sink.send(close));
        if let Err(error) = sent.await {
            tracing::debug!(error = %error, "a client never took its close");
        }
    }
}
