//! `GET /events/ws`

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade, close_code};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use events::{FeedError, LogReader, Position};
use futures::StreamExt;
use futures::stream::SplitStream;
use tokio::time::{Instant, MissedTickBehavior};
use tracing::Instrument;

use super::query::EventsQuery;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::QueryOf;
use crate::gateway::Gateway;
use crate::stream::lines::{cursor, write_line};
use crate::stream::socket::{CLOSING_PATIENCE, DEAD, PING, PatientSink, SendError, TRY_AGAIN_LATER, bounded};

/// The most events in one frame, and the most bytes before a frame is full.
const FRAME_EVENTS: usize = 64;
const FRAME_BYTES: usize = 64 << 10;
/// What a client may send: nothing, but control frames.
const MAX_FRAME_BYTES: usize = 4 << 10;

/// The tenant's events as they are recorded, over a WebSocket: text frames of up to 64 lines, each line one event with its
/// `position`, exactly as it is stored.
///
/// Whenever the server closes, the reason is `{"position":N}`: the last event that was sent. `?after=N` goes on from there
/// without a gap or a repeat, through any gateway. A client that takes nothing for 30 s is closed with 1013.
#[utoipa::path(
    get,
    path = "/events/ws",
    tag = "events",
    params(EventsQuery),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "Not a WebSocket request, no position, or no such type", body = ErrorBody),
        (status = 403, description = "A foreign origin", body = ErrorBody),
        (status = 404, description = "No such sandbox, exec or tenant", body = ErrorBody),
    )
)]
pub(crate) async fn ws(
    State(gateway): State<Gateway>,
    caller: Caller,
    headers: HeaderMap,
    QueryOf(query): QueryOf<EventsQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let (reader, until) = query.read(&headers, &caller)?.open(&gateway).await?;
    let span = tracing::Span::current();
    let upgrade = bounded(upgrade)
        .protocols([crate::routes::tickets::PROTOCOL])
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES);
    Ok(upgrade.on_upgrade(move |socket| {
        let sessions = gateway.sessions().clone();
        sessions.track_future(serve(gateway, reader, until, socket).instrument(span))
    }))
}

enum Ending {
    /// Everything that was asked for was sent.
    Complete,
    Stopping,
    Unreadable(FeedError),
    Blocked,
    Gone,
}

impl From<SendError> for Ending {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Blocked => Self::Blocked,
            SendError::Gone => Self::Gone,
        }
    }
}

async fn serve(gateway: Gateway, mut reader: LogReader, until: Option<Position>, socket: WebSocket) {
    let (sink, mut stream) = socket.split();
    let mut sink = PatientSink::new(sink, gateway.config().slow_reader_limit);
    let mut sent = reader.cursor();
    let ending = talk(&gateway, &mut reader, until, &mut sink, &mut stream, &mut sent).await;
    // What the reader holds of the feed is not needed while the close waits for the client.
    drop(reader);
    let code = match ending {
        Ending::Complete => close_code::NORMAL,
        Ending::Stopping => close_code::RESTART,
        Ending::Unreadable(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "a feed breaks");
            close_code::ERROR
        }
        Ending::Blocked => {
            metrics::counter!(crate::metrics::SLOW_READERS_CLOSED).increment(1);
            tracing::info!("a reader of events does not read: closing its connection");
            TRY_AGAIN_LATER
        }
        Ending::Gone => return,
    };
    sink.close(code, cursor(sent)).await;
    // Closing with unread frames would reset the connection, and the client could lose what it has not read yet.
    let _ = tokio::time::timeout(CLOSING_PATIENCE, async { while let Some(Ok(_)) = stream.next().await {} })
        .await;
}

async fn talk(
    gateway: &Gateway,
    reader: &mut LogReader,
    until: Option<Position>,
    sink: &mut PatientSink,
    stream: &mut SplitStream<WebSocket>,
    sent: &mut Position,
) -> Ending {
    let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        let read = async {
            match until {
                Some(_) => reader.next_recorded(FRAME_EVENTS).await,
                None => reader.next(FRAME_EVENTS).await,
            }
        };
        let frames = tokio::select! {
            biased;
            () = gateway.closing().cancelled() => return Ending::Stopping,
            said = stream.next() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ending::Gone,
                Some(Ok(_)) => {
                    heard = Instant::now();
                    continue;
                }
            },
            _ = ping.tick() => {
                if heard.elapsed() > DEAD {
                    return Ending::Gone;
                }
                if let Err(error) = sink.send(Message::Ping(Bytes::new())).await {
                    return error.into();
                }
                continue;
            }
            frames = read => match frames {
                Ok(frames) => frames,
                Err(error) => return Ending::Unreadable(error),
            },
        };
        let complete = frames.is_empty()
            || until.is_some_and(|until| frames.last().is_some_and(|last| last.position >= until));
        let mut text = String::new();
        for (index, frame) in frames.iter().enumerate() {
            write_line(frame, &mut text);
            if text.len() < FRAME_BYTES && index + 1 < frames.len() {
                continue;
            }
            // A frame that the client did not take in time still goes out before the close.
            *sent = frame.position;
            if let Err(error) = sink.send(Message::Text(std::mem::take(&mut text).into())).await {
                return error.into();
            }
        }
        if complete && until.is_some() {
            return Ending::Complete;
        }
    }
}
