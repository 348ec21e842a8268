//! The one loop of all WebSockets.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use events::DetachReason;
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::sync::CancellationToken;

use super::closing::{Connection, Ending, Sink, Stream, close};
use super::{BUFFER_BYTES, READ_BYTES};
use crate::auth::viewer::Watching;
use crate::error::{ApiError, ErrorBody};
use crate::gateway::Gateway;
use crate::metrics::SLOW_READERS_CLOSED;
use crate::stream::ws_frame;

/// What a route has to say.
pub trait Speaker: Send {
    /// What to say next. It is never dropped before it is done, unless the conversation is over; so what it gives is said,
    /// also to a client that does not take it in time: that still comes before the close.
    fn next(&mut self) -> impl Future<Output = Word> + Send;

    /// How an error is said.
    fn error(body: ErrorBody) -> Message {
        ws_frame::error(body)
    }

    /// Where a client goes on from, as the reason of a close: at most 123 bytes.
    fn cursor(&self) -> String;
}

/// What comes next in a conversation.
#[derive(Debug)]
pub enum Word {
    /// This.
    Say(Message),
    /// Nothing: all was said.
    Done,
    /// Nothing: the gateway stops.
    Stopping,
    /// Nothing: what there was to say cannot be read. It has been logged.
    Broken,
}

/// How a route takes what clients say.
pub trait Listener: Send {
    /// Takes a text or a binary message. While it does the connection is not read, and the client waits. An error ends the
    /// conversation.
    fn hear(&mut self, message: Message) -> impl Future<Output = Result<(), ApiError>> + Send;

    /// The client has closed; what it said before may still be under way.
    fn settle(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        std::future::ready(())
    }
}

/// Listens to nothing.
#[derive(Debug)]
pub struct Silent;

impl Listener for Silent {
    async fn hear(&mut self, _: Message) -> Result<(), ApiError> {
        Ok(())
    }
}

/// What holds for a conversation.
#[derive(Debug, Clone)]
pub struct Terms {
    /// How long a client may take nothing.
    pub slow_reader_limit: Duration,
    /// How often it is asked whether it lives.
    pub ping: Duration,
    /// How long it may say nothing.
    pub silence: Duration,
    /// Cancelled when the gateway stops. None: the speaker knows it by itself.
    pub stop: Option<CancellationToken>,
    /// The viewer link that let the client in, if one did.
    pub watching: Option<Watching>,
}

impl Terms {
    /// The gateway's, which hold for everybody.
    pub fn of(gateway: &Gateway) -> Self {
        let config = gateway.config();
        Self {
            slow_reader_limit: config.slow_reader_limit,
            ping: config.websocket_ping,
            // Who does not read does not see that it is asked.
            silence: config.websocket_silence.max(config.slow_reader_limit + config.websocket_ping),
            stop: Some(gateway.closing().clone()),
            watching: None,
        }
    }
}

/// What a client says first.
pub enum First {
    /// A text, or bytes.
    Message(Bytes, Socket),
    /// Nothing, for too long.
    Nothing(Socket),
    /// Nothing yet, and the gateway stops.
    Stopping(Socket),
    /// It had something else in mind, and is closed.
    Closed,
}

/// A WebSocket on which nothing has been said yet.
pub struct Socket(Connection);

impl Socket {
    pub(super) async fn new(io: TokioIo<Upgraded>, max_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(BUFFER_BYTES)
            .max_message_size(Some(max_bytes))
            .max_frame_size(Some(max_bytes));
        Self(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await)
    }

    /// Waits for the first message.
    pub async fn first(mut self, patience: Duration, stop: &CancellationToken) -> First {
        let heard = async {
            loop {
                match self.0.next().await {
                    Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                        break Ok(message.into_data());
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Close(_))) => break Err(Ending::Closed),
                    Some(Err(error)) => break Err(error.into()),
                    None => break Err(Ending::Gone),
                }
            }
        };
        let heard = tokio::select! {
            biased;
            () = stop.cancelled() => return First::Stopping(self),
            heard = tokio::time::timeout(patience, heard) => heard,
        };
        match heard {
            Ok(Ok(message)) => First::Message(message, self),
            Ok(Err(ending)) => {
                let (sink, stream) = self.0.split();
                close(sink, stream, ending, "").await;
                First::Closed
            }
            Err(_) => First::Nothing(self),
        }
    }

    /// Says what is wrong, and closes.
    pub async fn refuse(self, terms: &Terms, failure: ApiError) {
        let (sink, stream) = self.0.split();
        let mut mouth = Mouth { sink, limit: terms.slow_reader_limit };
        let stopping = terms.stop.as_ref().is_some_and(CancellationToken::is_cancelled);
        let told = mouth.say(ws_frame::error(failure.into_body())).await;
        let ending = match told {
            Ok(()) if stopping => Ending::Stopping,
            Ok(()) => Ending::Refused,
            Err(ending) => ending,
        };
        close(mouth.sink, stream, ending, "refused").await;
    }

    /// Talks until one of the two has nothing more to say, and says how it came to that. Errors that come as `asides` are told between the words
    /// of the speaker.
    pub async fn converse<S: Speaker, L: Listener>(
        self,
        terms: Terms,
        mut speaker: S,
        mut listener: L,
        mut asides: mpsc::Receiver<ErrorBody>,
    ) -> DetachReason {
        let (sink, mut stream) = self.0.split();
        let mut mouth = Mouth { sink, limit: terms.slow_reader_limit };
        let ending = tokio::select! {
            biased;
            ending = listen(&mut stream, &mut listener, terms.silence) => ending,
            ending = speak(&mut mouth, &mut speaker, &terms, &mut asides) => ending,
        };
        let ending = if let Ending::Nonsense(failure) = ending {
            match mouth.say(S::error(failure.into_body())).await {
                Ok(()) => Ending::Refused,
                Err(ending) => ending,
            }
        } else {
            ending
        };
        if matches!(ending, Ending::Slow) {
            metrics::counter!(SLOW_READERS_CLOSED).increment(1);
            tracing::info!("a WebSocket client does not read: closing its connection");
        }
        let reason =
            if let Ending::LinkOver(end) = &ending { end.message().to_owned() } else { speaker.cursor() };
        // What it holds of the feed is not needed while the close waits for the client.
        drop(speaker);
        let closed = matches!(ending, Ending::Closed);
        let how = ending.reason();
        let settling = async {
            if closed {
                listener.settle().await;
            }
        };
        tokio::join!(close(mouth.sink, stream, ending, &reason), settling);
        how
    }
}

/// The sending half of a connection whose client may stop reading.
struct Mouth {
    sink: Sink,
    limit: Duration,
}

impl Mouth {
    /// Sends a message. Also where the client takes it too late it goes out before anything else does: it counts as sent.
    async fn say(&mut self, message: Message) -> Result<(), Ending> {
        let gone = |error: Error| {
            if let Error::WriteBufferFull(message) = &error {
                tracing::error!(bytes = message.len(), "a message is too large to be sent");
            }
            Ending::Gone
        };
        self.sink.feed(message).await.map_err(gone)?;
        match tokio::time::timeout(self.limit, self.sink.flush()).await {
            Ok(sent) => sent.map_err(gone),
            Err(_) => Err(Ending::Slow),
        }
    }
}

async fn listen(stream: &mut Stream, listener: &mut impl Listener, silence: Duration) -> Ending {
    loop {
        let Ok(heard) = tokio::time::timeout(silence, stream.next()).await else {
            tracing::debug!("a WebSocket client is silent: closing its connection");
            return Ending::Silent;
        };
        match heard {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                if let Err(failure) = listener.hear(message).await {
                    return Ending::Nonsense(failure);
                }
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(_))) => return Ending::Closed,
            Some(Err(error)) => return error.into(),
            None => return Ending::Gone,
        }
    }
}

async fn speak<S: Speaker>(
    mouth: &mut Mouth,
    speaker: &mut S,
    terms: &Terms,
    asides: &mut mpsc::Receiver<ErrorBody>,
) -> Ending {
    match talk(mouth, speaker, terms, asides).await {
        Ok(ending) | Err(ending) => ending,
    }
}

async fn talk<S: Speaker>(
    mouth: &mut Mouth,
    speaker: &mut S,
    terms: &Terms,
    asides: &mut mpsc::Receiver<ErrorBody>,
) -> Result<Ending, Ending> {
    let mut ping = tokio::time::interval_at(Instant::now() + terms.ping, terms.ping);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stopped = pin!(async {
        match &terms.stop {
            Some(stop) => stop.cancelled().await,
            None => std::future::pending().await,
        }
    });
    let mut over = pin!(async {
        match &terms.watching {
            Some(watching) => watching.over().await,
            None => std::future::pending().await,
        }
    });
    loop {
        let word = {
            let mut next = pin!(speaker.next());
            loop {
                tokio::select! {
                    biased;
                    () = &mut stopped => return Ok(Ending::Stopping),
                    end = &mut over => return Ok(Ending::LinkOver(end)),
                    Some(aside) = asides.recv() => mouth.say(S::error(aside)).await?,
                    _ = ping.tick() => mouth.say(Message::Ping(Bytes::new())).await?,
                    word = &mut next => break word,
                }
            }
        };
        match word {
            Word::Say(message) => mouth.say(message).await?,
            Word::Done => return Ok(Ending::Done),
            Word::Stopping => return Ok(Ending::Stopping),
            Word::Broken => return Ok(Ending::Broken),
        }
    }
}
