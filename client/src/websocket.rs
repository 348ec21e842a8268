//! WebSocket connections to the server.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{Sink as _, SinkExt as _, StreamExt as _};
use reqwest::Url;
use reqwest::header::HeaderValue;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};

use crate::client::{Client, REQUEST_ID};
use crate::error::ClientError;
use crate::key::IdempotencyKey;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A server pings at least every 20 s. Silent for longer, it is gone.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose both directions can be waited for at once.
pub struct Connection {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    is_unflushed: bool,
    silent_at: Instant,
}

/// What a server sent.
#[derive(Debug)]
pub enum Received {
    /// A binary frame, or a text.
    Message(Message),
    /// It closed the connection, with these words or without any.
    Closed(Option<CloseFrame>),
}

impl Connection {
    /// Opens one.
    pub async fn open(client: &Client, mut url: Url) -> Result<Self, ClientError> {
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme)
            .map_err(|()| ClientError::Unexpected("the server's address is not one of HTTP".to_owned()))?;
        let mut request =
            url.as_str().into_client_request().map_err(|error| ClientError::Unexpected(error.to_string()))?;
        let headers = request.headers_mut();
        headers.extend(client.headers());
        if let Ok(id) = HeaderValue::from_str(IdempotencyKey::new().as_str()) {
            headers.insert(REQUEST_ID, id);
        }
        let connector = Connector::Rustls(client.tls());
        let connect = connect_async_tls_with_config(request, None, false, Some(connector));
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, connect).await;
        let socket = match opened {
            Ok(Ok((socket, _))) => socket,
            Ok(Err(tungstenite::Error::Http(response))) => {
                let (parts, body) = response.into_parts();
                let id = parts.headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or("unknown");
                return Err(ClientError::refused(parts.status, id, &body.unwrap_or_default()));
            }
            Ok(Err(tungstenite::Error::Io(error))) => return Err(client.unreachable(error.into())),
            Ok(Err(error)) => return Err(ClientError::Broken(error.into())),
            Err(_) => return Err(client.unreachable("no answer in time".into())),
        };
        let (sink, stream) = socket.split();
        Ok(Self { sink, stream, is_unflushed: false, silent_at: Instant::now() + SILENCE })
    }

    /// Waits for what the server says, and meanwhile sends what was given to it. `Ok(None)`: there is room for another
    /// message, which is only waited for where that is wanted. Cancel safe.
    pub async fn next(
        &mut self,
        wants_room: bool,
        wants_messages: bool,
    ) -> Result<Option<Received>, ClientError> {
        if !wants_messages {
            // Nobody listened: that is no silence.
            self.silent_at = Instant::now() + SILENCE;
        }
        loop {
            let Self { sink, stream, is_unflushed, silent_at } = self;
            let mut sink = Pin::new(sink);
            let sending = poll_fn(|cx| match (wants_room, *is_unflushed) {
                (true, _) => sink.as_mut().poll_ready(cx),
                (false, true) => sink.as_mut().poll_flush(cx),
                (false, false) => Poll::Pending,
            });
            tokio::select! {
                message = stream.next(), if wants_messages => {
                    *silent_at = Instant::now() + SILENCE;
                    match message {
                        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                        Some(Ok(Message::Close(words))) => return Ok(Some(Received::Closed(words))),
                        Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                            return Ok(Some(Received::Message(message)));
                        }
                        Some(Err(error)) => return Err(broken(error)),
                        None => return Ok(Some(Received::Closed(None))),
                    }
                }
                sent = sending => {
                    sent.map_err(broken)?;
                    if wants_room {
                        return Ok(None);
                    }
                    *is_unflushed = false;
                }
                () = tokio::time::sleep_until(*silent_at), if wants_messages => {
                    return Err(ClientError::Broken(
                        format!("nothing came for {} s", SILENCE.as_secs()).into(),
                    ));
                }
            }
        }
    }

    /// Gives a message to it, for which there is room. From then on it counts as sent.
    pub fn send(&mut self, message: Message) -> Result<(), ClientError> {
        self.is_unflushed = true;
        self.sink.start_send_unpin(message).map_err(broken)
    }

    /// Says farewell.
    pub async fn close(&mut self) {
        let _ = tokio::time::timeout(Duration::from_millis(500), self.sink.close()).await;
    }
}

fn broken(error: tungstenite::Error) -> ClientError {
    ClientError::Broken(error.into())
}
