//! How a WebSocket ends: both sides say so, then the server ends the TCP connection, and what a client is still sending
//! is read and thrown away, because a connection that is dropped with unread bytes in it is reset, and the client could
//! lose what it has not read yet.

use std::pin::pin;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::code;
use crate::auth::viewer::LinkEnd;
use crate::error::ApiError;
use events::DetachReason;

pub type Connection = WebSocketStream<TokioIo<Upgraded>>;
pub type Sink = SplitSink<Connection, Message>;
pub type Stream = SplitStream<Connection>;

/// How long a client may take to close, once it has our close, and how long it may go on sending.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a close waits behind what the client has not read.
const PARTING: Duration = Duration::from_secs(180);
/// How much of what a client goes on sending is thrown away, in bytes.
const MAX_THROWN: usize = 64 << 20;
/// What a control frame has room for behind the code, in bytes.
const MAX_REASON: usize = 123;

/// Why a conversation is over.
#[derive(Debug)]
pub enum Ending {
    /// Everything was said.
    Done,
    /// The gateway stops.
    Stopping,
    /// The viewer link that let the client in is not good any more.
    LinkOver(LinkEnd),
    /// What there was to say cannot be read.
    Broken,
    /// The client takes nothing.
    Slow,
    /// The client says nothing, not even that it lives.
    Silent,
    /// The client said what this route does not understand, and is to be told so.
    Nonsense(ApiError),
    /// The client was told that it does not get what it wanted.
    Refused,
    /// The client broke the protocol.
    Violation(u16, &'static str),
    /// The client closed.
    Closed,
    /// The connection is no more.
    Gone,
}

impl Ending {
    /// The same, as events tell it.
    pub const fn reason(&self) -> DetachReason {
        match self {
            Self::Done => DetachReason::Ended,
            Self::Stopping | Self::Broken => DetachReason::Interrupted,
            Self::LinkOver(LinkEnd::Expired) => DetachReason::Expired,
            Self::LinkOver(LinkEnd::Revoked) => DetachReason::Revoked,
            Self::Slow => DetachReason::Slow,
            Self::Silent
            | Self::Nonsense(_)
            | Self::Refused
            | Self::Violation(..)
            | Self::Closed
            | Self::Gone => DetachReason::Left,
        }
    }
}

impl From<Error> for Ending {
    fn from(error: Error) -> Self {
        match error {
            Error::Capacity(_) => Self::Violation(code::TOO_BIG, "the message is too large"),
            Error::Utf8(_) => Self::Violation(code::INVALID_TEXT, "the text is not UTF-8"),
            Error::Protocol(
                ProtocolError::ResetWithoutClosingHandshake
                | ProtocolError::SendAfterClosing
                | ProtocolError::ReceivedAfterClosing,
            ) => Self::Gone,
            Error::Protocol(error) => {
                tracing::debug!(error = %error, "a client breaks the WebSocket protocol");
                Self::Violation(code::PROTOCOL, "that is no frame of RFC 6455")
            }
            Error::AttackAttempt => Self::Violation(code::PROTOCOL, "that is no frame of RFC 6455"),
            Error::ConnectionClosed
            | Error::AlreadyClosed
            | Error::Io(_)
            | Error::Tls(_)
            | Error::WriteBufferFull(_)
            | Error::Url(_)
            | Error::Http(_)
            | Error::HttpFormat(_) => Self::Gone,
        }
    }
}

impl Ending {
    /// The code of the close; none where it is too late for one, or the client's own is answered.
    const fn code(&self) -> Option<u16> {
        match self {
            Self::Done => Some(code::NORMAL),
            Self::Stopping => Some(code::RESTART),
            Self::LinkOver(_) | Self::Nonsense(_) | Self::Refused => Some(code::POLICY),
            Self::Broken => Some(code::ERROR),
            Self::Slow | Self::Silent => Some(code::TRY_AGAIN_LATER),
            Self::Violation(code, _) => Some(*code),
            Self::Closed | Self::Gone => None,
        }
    }
}

/// Ends a connection. `reason` is for the codes that leave room for one: where to go on from, or what went wrong.
pub async fn close(mut sink: Sink, mut stream: Stream, ending: Ending, reason: &str) {
    match (&ending, ending.code()) {
        (Ending::Gone, _) => return,
        (Ending::Violation(code, what), _) => {
            // What follows on a frame that is none cannot be read: there will be no close of the client.
            let _ = timeout(PATIENCE, sink.send(frame(*code, what))).await;
        }
        (_, Some(code)) => part(&mut sink, &mut stream, frame(code, reason)).await,
        // Its own close, said back, is in the buffer already.
        (_, None) => {
            let _ = timeout(PATIENCE, sink.flush()).await;
        }
    }
    if let Ok(connection) = sink.reunite(stream) {
        hang_up(connection.into_inner()).await;
    }
}

/// Sends what is still in the buffer, and the close. A client that goes on reading gets all of it.
async fn part(sink: &mut Sink, stream: &mut Stream, close: Message) {
    let until = Instant::now() + PARTING;
    let mut answered = pin!(until_closed(stream));
    {
        let mut sending = pin!(sink.send(close));
        tokio::select! {
            sent = timeout_at(until, &mut sending) => {
                if !matches!(sent, Ok(Ok(()))) {
                    tracing::debug!("a client never took its close");
                    return;
                }
            }
            () = &mut answered => {
                let _ = timeout(PATIENCE, sending).await;
                return;
            }
        }
    }
    let _ = timeout(PATIENCE, answered).await;
}

async fn until_closed(stream: &mut Stream) {
    while let Some(Ok(message)) = stream.next().await {
        if message.is_close() {
            return;
        }
    }
}

/// Ends our direction, and reads until the client has ended its own.
async fn hang_up(mut io: impl AsyncReadExt + AsyncWriteExt + Unpin) {
    if !matches!(timeout(PATIENCE, io.shutdown()).await, Ok(Ok(()))) {
        return;
    }
    let mut thrown = 0;
    let mut buffer = vec![0; 16 << 10];
    let rest = async {
        while thrown < MAX_THROWN {
            match io.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => thrown += read,
            }
        }
    };
    let _ = timeout(PATIENCE, rest).await;
}

fn frame(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame { code: code.into(), reason: Utf8Bytes::from(short(reason)) }))
}

/// As much of a reason as there is room for, in whole characters.
fn short(reason: &str) -> &str {
    let end = (0..=MAX_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
    &reason[..end.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_has_at_most_123_bytes_of_whole_characters() {
        assert_eq!(short("gone"), "gone");
        assert_eq!(short(&"é".repeat(100)), "é".repeat(61));
        assert_eq!(short(&"x".repeat(200)).len(), 123);
    }
}
