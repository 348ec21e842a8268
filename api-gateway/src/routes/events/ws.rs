//! `GET /events/ws`

use std::collections::VecDeque;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use events::{Frame, Position};
use feed::LogReader;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::query::EventsQuery;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::QueryOf;
use crate::gateway::Gateway;
use crate::stream::lines::{cursor, write_line};
use crate::stream::socket::{Silent, Speaker, Terms, Upgrade, Word};

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
    upgrade: Result<Upgrade, ApiError>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade?;
    let (reader, until) = query.read(&headers, &caller)?.open(&gateway, &caller).await?;
    let events =
        Events { sent: reader.cursor(), reader, until, waiting: VecDeque::new(), is_complete: false };
    let terms = Terms::of(&gateway);
    let sessions = gateway.sessions().clone();
    Ok(upgrade.accept(&sessions, None, MAX_FRAME_BYTES, move |socket| {
        let (_, no_asides) = mpsc::channel(1);
        socket.converse(terms, events, Silent, no_asides)
    }))
}

/// Says events as they are recorded.
struct Events {
    reader: LogReader,
    until: Option<Position>,
    sent: Position,
    /// Read, and not said yet.
    waiting: VecDeque<Frame>,
    is_complete: bool,
}

impl Speaker for Events {
    async fn next(&mut self) -> Word {
        if self.waiting.is_empty() {
            if self.is_complete {
                return Word::Done;
            }
            let read = match self.until {
                Some(_) => self.reader.next_recorded(FRAME_EVENTS).await,
                None => self.reader.next(FRAME_EVENTS).await,
            };
            match read {
                Ok(frames) => self.waiting = frames.into(),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a feed breaks");
                    return Word::Broken;
                }
            }
            if let Some(until) = self.until {
                self.is_complete = self.waiting.back().is_none_or(|last| last.position >= until);
            }
        }
        let mut text = String::new();
        while let Some(frame) = self.waiting.pop_front() {
            write_line(&frame, &mut text);
            self.sent = frame.position;
            if text.len() >= FRAME_BYTES {
                break;
            }
        }
        if text.is_empty() { Word::Done } else { Word::Say(Message::text(text)) }
    }

    fn cursor(&self) -> String {
        cursor(self.sent)
    }
}
