//! `WS /sandboxes/{id}/replay`

use std::collections::VecDeque;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use events::{ExecId, Position};
use record::{EventFilter, StoreError};
use serde::{Deserialize, Serialize};
use spelling::parse_go_duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use utoipa::IntoParams;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::Gateway;
use crate::moment::Moment;
use crate::stream::lines::cursor;
use crate::stream::pacer::{Pacer, Speed};
use crate::stream::replay::{Frames, Playable, text};
use crate::stream::socket::{Listener, Speaker, Terms, Upgrade, Word};

/// How many events are read from the record at once: each may have 64 KiB.
const PAGE: u32 = 32;
/// The largest frame that a client may send, in bytes.
const MAX_FRAME_BYTES: usize = 4 << 10;
/// How many wishes may wait.
const WISHES: usize = 8;

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
pub(crate) struct Wanted {
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
    pub(crate) fn read(&self) -> Result<Wanted, ApiError> {
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
            Some(text) => Some(text.parse().map_err(|_| ApiError::absent("exec", text))?),
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
        (status = 404, description = "No such sandbox, or no such exec in it", body = ErrorBody),
        (status = 410, description = "Its beginning is not kept any more: replay it `from` the floor", body = ErrorBody),
    )
)]
pub(crate) async fn replay(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<ReplayQuery>,
    upgrade: Result<Upgrade, ApiError>,
) -> Result<Response, ApiError> {
    let state = gateway.recorded_sandbox(&caller, id).await?;
    let upgrade = upgrade?;
    let wanted = query.read()?;
    if let Some(exec) = wanted.exec {
        // What is another's is not looked through, which would take as long as it has written.
        let ran_in = gateway.recorded_exec(&caller, &caller.tenant, exec).await?.sandbox;
        if ran_in != id {
            return Err(ApiError::absent("exec", exec));
        }
    }
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
            subject: None,
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
    let (wishes, heard) = mpsc::channel(WISHES);
    let player = Player {
        tape,
        pacer,
        begin: Some(begin),
        playable: None,
        wishes: heard,
        sent: Position::ZERO,
        is_over: false,
    };
    let terms = Terms::of(&gateway);
    let sessions = gateway.sessions().clone();
    Ok(upgrade.accept(&sessions, None, MAX_FRAME_BYTES, move |socket| {
        let (_, no_asides) = mpsc::channel(1);
        socket.converse(terms, player, Wishes(wishes), no_asides)
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

/// What a control frame wants. The protocol is ours alone, so nothing unknown is let pass.
pub(crate) fn wish(text: &str) -> Result<Wish, ApiError> {
    let control: Control = crate::extract::parse_object(text.as_bytes())?;
    let known: &'static [&'static str] = match control {
        Control::Pause | Control::Resume => &["type"],
        Control::Speed { .. } => &["type", "speed"],
        Control::Seek { .. } => &["type", "position"],
    };
    crate::strict::Unread::strict().control(text.as_bytes(), known)?;
    Ok(match control {
        Control::Pause => Wish::Pause,
        Control::Resume => Wish::Resume,
        Control::Speed { speed } => Wish::Speed(speed.read()?),
        Control::Seek { position } => Wish::Seek(position),
    })
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

/// Says what happened, each thing at its moment.
struct Player {
    tape: Tape,
    pacer: Pacer,
    /// Said first of all.
    begin: Option<Said>,
    /// Waits for its moment.
    playable: Option<Playable>,
    /// What the client wants.
    wishes: mpsc::Receiver<Wish>,
    /// The newest event of which something was said.
    sent: Position,
    is_over: bool,
}

impl Speaker for Player {
    async fn next(&mut self) -> Word {
        if let Some(begin) = self.begin.take() {
            return Word::Say(Message::Text(text(&begin)));
        }
        if self.is_over {
            return Word::Done;
        }
        loop {
            if self.playable.is_none() {
                match self.tape.next().await {
                    Ok(Some(playable)) => {
                        self.pacer.expect(playable.time);
                        self.playable = Some(playable);
                    }
                    Ok(None) => {
                        self.is_over = true;
                        return Word::Say(Message::Text(text(&Said::End { position: self.sent.0 })));
                    }
                    Err(error) => {
                        tracing::warn!(error = %events::ErrorChain(&error), "a replay breaks");
                        return Word::Broken;
                    }
                }
            }
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
                Some(wish) = self.wishes.recv() => {
                    if let Some(answer) = self.obey(wish) {
                        return Word::Say(answer);
                    }
                }
                () = moment => {
                    if let Some(playable) = self.playable.take() {
                        self.sent = playable.position;
                        self.pacer.played(Instant::now());
                        return Word::Say(Message::Text(playable.text));
                    }
                }
            }
        }
    }

    fn cursor(&self) -> String {
        cursor(self.sent)
    }
}

impl Player {
    fn obey(&mut self, wish: Wish) -> Option<Message> {
        let now = Instant::now();
        match wish {
            Wish::Pause => self.pacer.pause(now),
            Wish::Resume => self.pacer.resume(now),
            Wish::Speed(speed) => self.pacer.set_speed(speed, now),
            Wish::Seek(position) => {
                self.tape.seek(Position(position.min(i64::MAX.unsigned_abs())));
                self.pacer.jump(now);
                self.playable = None;
                return Some(Message::Text(text(&Said::Seeked { position })));
            }
        }
        None
    }
}

/// What a client wants to be different.
#[derive(Debug)]
pub(crate) enum Wish {
    Pause,
    Resume,
    Speed(Speed),
    Seek(u64),
}

struct Wishes(mpsc::Sender<Wish>);

impl Listener for Wishes {
    async fn hear(&mut self, message: Message) -> Result<(), ApiError> {
        let Message::Text(text) = message else {
            return Err(ApiError::bad_request("control frames are text"));
        };
        let wish = wish(&text)?;
        // A player that has stopped has played everything.
        let _ = self.0.send(wish).await;
        Ok(())
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
