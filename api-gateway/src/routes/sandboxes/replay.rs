//! `WS /sandboxes/{id}/replay`

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{EventFilter, ExecId, Position, StoreError, parse_go_duration};
use futures::StreamExt;
use futures::stream::SplitStream;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior};
use tracing::Instrument;
use utoipa::IntoParams;

use super::past::recorded;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::Gateway;
use crate::moment::Moment;
use crate::stream::lines::cursor;
use crate::stream::pacer::{Pacer, Speed};
use crate::stream::replay::{Frames, Playable, text};
use crate::stream::socket::{CLOSING_PATIENCE, DEAD, PING, PatientSink, SendError, TRY_AGAIN_LATER, bounded};
use crate::stream::ws_frame::error;

/// How many events are read from the record at once: each may have 64 KiB.
const PAGE: u32 = 32;
/// The largest frame that a client may send, in bytes.
const MAX_FRAME_BYTES: usize = 4 << 10;

/// What is played, and how.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReplayQuery {
    /// How fast: 0.1 to 1000 times as it was, or `max`. 1 by default.
    pub speed: Option<String>,
    /// The longest pause, as a Go duration (`2s`) of recorded time. No limit by default.
    pub idle_limit: Option<String>,
    /// The first event: a position, or a time. From the beginning by default.
    pub from: Option<String>,
    /// The last event: a position, or a time. Up to the newest one by default.
    pub to: Option<String>,
    /// Only this exec.
    pub exec: Option<String>,
}

#[derive(Debug, PartialEq)]
struct Wanted {
    speed: Speed,
    idle_limit: Option<Duration>,
    from: Option<Moment>,
    to: Option<Moment>,
    exec: Option<ExecId>,
}

fn wrong_speed() -> ApiError {
    ApiError::bad_request("speed must be 0.1 to 1000, or max")
}

impl ReplayQuery {
    fn read(&self) -> Result<Wanted, ApiError> {
        let moment =
            |text: &Option<String>, name| text.as_deref().map(|text| Moment::read(text, name)).transpose();
        let idle_limit = match &self.idle_limit {
            None => None,
            Some(text) => Some(
                parse_go_duration(text)
                    .map_err(|_| ApiError::bad_request("idle_limit must be a duration such as 2s"))?,
            ),
        };
        let exec = match &self.exec {
            None => None,
            Some(text) => Some(text.parse().map_err(|_| ApiError::not_found("exec not found"))?),
        };
        Ok(Wanted {
            speed: match &self.speed {
                None => Speed::Times(1.0),
                Some(text) => Speed::read(text).ok_or_else(wrong_speed)?,
            },
            idle_limit,
            from: moment(&self.from, "from")?,
            to: moment(&self.to, "to")?,
            exec,
        })
    }
}

/// Plays what happened in a sandbox, with its timing, over a WebSocket; also after it is gone. What has not happened
/// when the replay begins is not part of it.
///
/// The client may send `{"type":"pause"}`, `{"type":"resume"}`, `{"type":"speed","speed":4}` and
/// `{"type":"seek","position":N}`.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/replay",
    tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox"), ReplayQuery),
    responses(
        (status = 101, description = "The connection is a WebSocket now"),
        (status = 400, description = "Not a WebSocket request, or no such speed", body = ErrorBody),
        (status = 403, description = "A foreign origin", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
        (status = 410, description = "Its beginning is not kept any more: replay it `from` the floor", body = ErrorBody),
    )
)]
pub(crate) async fn replay(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<ReplayQuery>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let state = recorded(&gateway, &caller.tenant, id).await?;
    let upgrade = upgrade.map_err(|error| ApiError::bad_request(error.body_text()))?;
    let wanted = query.read()?;
    let head = gateway.store().head().await.map_err(ApiError::store)?.position;
    let first = match wanted.from {
        Some(moment) => moment.first(&gateway).await?,
        None => Position::ZERO,
    };
    let last = match wanted.to {
        Some(moment) => moment.last(&gateway).await?.min(head),
        None => head,
    };
    let mut tape = Tape {
        filter: EventFilter {
            tenant: Some(caller.tenant),
            sandbox: Some(id),
            exec: wanted.exec,
            types: Vec::new(),
        },
        last,
        after: before(first),
        ready: VecDeque::new(),
        frames: Frames::default(),
        over: false,
        gateway: gateway.clone(),
    };
    let begin = Said::Begin {
        sandbox_id: id.to_string(),
        to: last.0,
        started_at: state.requested_at,
        ended_at: super::past::end(&state).0,
    };
    // What cannot be read is told while there is somebody who understands a status.
    tape.fill().await.map_err(ApiError::store)?;
    let pacer = Pacer::new(wanted.speed, wanted.idle_limit, Instant::now());
    let span = tracing::Span::current();
    let upgrade = bounded(upgrade)
        .protocols([crate::routes::tickets::PROTOCOL])
        .max_message_size(MAX_FRAME_BYTES)
        .max_frame_size(MAX_FRAME_BYTES);
    Ok(upgrade.on_upgrade(move |socket| {
        let sessions = gateway.sessions().clone();
        sessions.track_future(serve(gateway, begin, tape, pacer, socket).instrument(span))
    }))
}

fn before(position: Position) -> Position {
    Position(position.0.saturating_sub(1))
}

/// What is still to be played.
struct Tape {
    gateway: Gateway,
    filter: EventFilter,
    last: Position,
    after: Position,
    ready: VecDeque<Playable>,
    frames: Frames,
    over: bool,
}

impl Tape {
    async fn next(&mut self) -> Result<Option<Playable>, StoreError> {
        self.fill().await?;
        Ok(self.ready.pop_front())
    }

    /// Reads on until something is ready, or all is over.
    async fn fill(&mut self) -> Result<(), StoreError> {
        while self.ready.is_empty() && !self.over {
            let page = self.gateway.store().read(&self.filter, self.after, PAGE).await?;
            self.over = page.len() < PAGE as usize;
            for frame in &page {
                if frame.position > self.last {
                    self.over = true;
                    break;
                }
                self.after = frame.position;
                self.ready.extend(self.frames.of(frame));
            }
        }
        Ok(())
    }

    fn seek(&mut self, position: Position) {
        self.after = before(position);
        self.ready.clear();
        self.frames.clear();
        self.over = false;
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Control {
    Pause,
    Resume,
    Speed { speed: SpeedValue },
    Seek { position: u64 },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum SpeedValue {
    Times(f64),
    Name(String),
}

impl SpeedValue {
    fn read(&self) -> Result<Speed, ApiError> {
        let speed = match self {
            Self::Times(times) => Some(*times).filter(|it| Speed::RANGE.contains(it)).map(Speed::Times),
            Self::Name(name) => Speed::read(name),
        };
        speed.ok_or_else(wrong_speed)
    }
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    /// The first frame: what is there to be played, and the life of the sandbox.
    Begin {
        sandbox_id: String,
        to: u64,
        started_at: DateTime<Utc>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ended_at: Option<DateTime<Utc>>,
    },
    /// What follows is from there.
    Seeked { position: u64 },
    /// All has been played.
    End { position: u64 },
}

enum Ending {
    Complete,
    Stopping,
    Unreadable(StoreError),
    Blocked,
    Nonsense(ApiError),
    Gone,
}

async fn serve(gateway: Gateway, begin: Said, tape: Tape, pacer: Pacer, socket: WebSocket) {
    let (sink, stream) = socket.split();
    let sink = PatientSink::new(sink, gateway.config().slow_reader_limit);
    let mut player =
        Player { gateway, tape, pacer, sink, stream, heard: Instant::now(), sent: Position::ZERO };
    let ending = player.play(&begin).await;
    let code = match ending {
        Ending::Complete => close_code::NORMAL,
        Ending::Stopping => close_code::RESTART,
        Ending::Unreadable(error) => {
            tracing::warn!(error = %events::ErrorChain(&error), "a replay breaks");
            close_code::ERROR
        }
        Ending::Blocked => {
            metrics::counter!(crate::metrics::SLOW_READERS_CLOSED).increment(1);
            tracing::info!("a viewer of a replay does not read: closing its connection");
            TRY_AGAIN_LATER
        }
        Ending::Nonsense(failure) => {
            if player.send(error(failure.into_body())).await.is_err() {
                return;
            }
            close_code::POLICY
        }
        Ending::Gone => return,
    };
    player.close(code).await;
}

struct Player {
    gateway: Gateway,
    tape: Tape,
    pacer: Pacer,
    sink: PatientSink,
    stream: SplitStream<WebSocket>,
    heard: Instant,
    /// The newest event of which something was sent.
    sent: Position,
}

impl Player {
    async fn play(&mut self, begin: &Said) -> Ending {
        if let Err(ending) = self.send(Message::Text(text(begin))).await {
            return ending;
        }
        match self.play_on().await {
            Ok(()) => Ending::Complete,
            Err(ending) => ending,
        }
    }

    async fn play_on(&mut self) -> Result<(), Ending> {
        let closing = self.gateway.closing().clone();
        let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let Some(playable) = self.tape.next().await.map_err(Ending::Unreadable)? else {
                let end = Said::End { position: self.sent.0 };
                return self.send(Message::Text(text(&end))).await;
            };
            self.pacer.expect(playable.time);
            loop {
                let due = self.pacer.due();
                let moment = async {
                    match due {
                        // A timer would take up to a millisecond, which is long where everything is due.
                        Some(due) if due <= Instant::now() => {}
                        Some(due) => tokio::time::sleep_until(due).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = closing.cancelled() => return Err(Ending::Stopping),
                    said = self.stream.next() => {
                        let jumped = self.obey(said).await?;
                        if jumped {
                            break;
                        }
                    }
                    _ = ping.tick() => {
                        if self.heard.elapsed() > DEAD {
                            return Err(Ending::Gone);
                        }
                        self.send(Message::Ping(Bytes::new())).await?;
                    }
                    () = moment => {
                        self.sent = playable.position;
                        self.send(Message::Text(playable.text)).await?;
                        self.pacer.played(Instant::now());
                        break;
                    }
                }
            }
        }
    }

    /// Does what the client wants. True: what was about to be played is not any more.
    async fn obey(&mut self, said: Option<Result<Message, axum::Error>>) -> Result<bool, Ending> {
        let frame = match said {
            Some(Ok(Message::Text(text))) => text,
            Some(Ok(Message::Binary(_))) => {
                return Err(Ending::Nonsense(ApiError::bad_request("control frames are text")));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {
                self.heard = Instant::now();
                return Ok(false);
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Ending::Gone),
        };
        self.heard = Instant::now();
        match crate::extract::parse_object(frame.as_bytes()).map_err(Ending::Nonsense)? {
            Control::Pause => self.pacer.pause(Instant::now()),
            Control::Resume => self.pacer.resume(Instant::now()),
            Control::Speed { speed } => {
                self.pacer.set_speed(speed.read().map_err(Ending::Nonsense)?, Instant::now());
            }
            Control::Seek { position } => {
                self.tape.seek(Position(position.min(i64::MAX.unsigned_abs())));
                self.pacer.jump(Instant::now());
                self.send(Message::Text(text(&Said::Seeked { position }))).await?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn send(&mut self, message: Message) -> Result<(), Ending> {
        self.sink.send(message).await.map_err(|error| match error {
            SendError::Blocked => Ending::Blocked,
            SendError::Gone => Ending::Gone,
        })
    }

    /// Says goodbye, with where to go on from.
    async fn close(mut self, code: u16) {
        self.sink.close(code, cursor(self.sent)).await;
        // Closing with unread frames would reset the connection, and the client could lose what it has not read yet.
        let rest = async { while let Some(Ok(_)) = self.stream.next().await {} };
        let _ = tokio::time::timeout(CLOSING_PATIENCE, rest).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_speed_no_pause_and_no_point_is_refused() {
        let query = |text: &str| {
            let uri: axum::http::Uri = format!("/?{text}").parse().unwrap();
            axum::extract::Query::<ReplayQuery>::try_from_uri(&uri).unwrap().0.read()
        };
        let wanted = query("speed=4&idle_limit=2s&from=7&to=2025-06-15T15:06:40Z").unwrap();
        assert_eq!((wanted.speed, wanted.idle_limit), (Speed::Times(4.0), Some(Duration::from_secs(2))));
        assert_eq!(wanted.from, Some(Moment::Position(Position(7))));
        assert_eq!(query("").unwrap().speed, Speed::Times(1.0));
        for bad in ["speed=0", "speed=fast", "idle_limit=2", "idle_limit=-1s", "from=now", "to=x", "exec=ex-"]
        {
            assert!(query(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn control_frames_are_read() {
        let read = |text: &str| crate::extract::parse_object::<Control>(text.as_bytes());
        assert!(matches!(read(r#"{"type":"pause"}"#), Ok(Control::Pause)));
        assert!(matches!(read(r#"{"type":"seek","position":5}"#), Ok(Control::Seek { position: 5 })));
        for (text, speed) in [
            (r#"{"type":"speed","speed":0.5}"#, Speed::Times(0.5)),
            (r#"{"type":"speed","speed":"max"}"#, Speed::Max),
        ] {
            let Ok(Control::Speed { speed: value }) = read(text) else { panic!("{text}") };
            assert_eq!(value.read().unwrap(), speed);
        }
        for bad in
            ["", "[]", "{}", r#"{"type":"stop"}"#, r#"{"type":"seek"}"#, r#"{"type":"seek","position":-1}"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
