//! What happened to a sandbox, and what it was.

use api_types::{PastSandbox, Timeline};
use reqwest::Method;
use serde::Serialize;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::error::ClientError;
use crate::websocket::{Connection, Received};

/// A normal end of a WebSocket (RFC 6455).
const NORMAL: u16 = 1000;

/// What of a sandbox is played, and how fast. What is `None` is the server's default: all of it, as fast as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ReplayQuery {
    /// How fast: `0.1` to `1000` times as it was, or `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<String>,
    /// The longest pause, as a Go duration (`2s`) of recorded time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_limit: Option<String>,
    /// The first event: a position, or a time (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The last event: a position, or a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Only this exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exec: Option<String>,
}

/// A sandbox's past as it is played. Dropping it ends the play.
pub struct Replay(Connection);

impl Replay {
    /// The next frame, as `docs/api.md` has them; `None` at the end. Cancel safe.
    pub async fn next(&mut self) -> Result<Option<Value>, ClientError> {
        loop {
            match self.0.next(false, true).await? {
                Some(Received::Message(Message::Text(text))) => {
                    let frame = serde_json::from_str(&text);
                    return frame
                        .map(Some)
                        .map_err(|error| ClientError::unexpected("a frame of a replay", error));
                }
                Some(Received::Closed(Some(words))) if u16::from(words.code) != NORMAL => {
                    return Err(ClientError::Closed(words.reason.to_string()));
                }
                Some(Received::Closed(_)) => return Ok(None),
                Some(Received::Message(_)) | None => {}
            }
        }
    }
}

impl Client {
    /// What happened to a sandbox and in it, a page at a time: events with their execs, without output. Also of one that is
    /// gone. `after` is the `next_after` of the page before.
    pub async fn timeline(
        &self,
        sandbox: &str,
        after: Option<u64>,
        limit: Option<u32>,
    ) -> Result<Timeline, ClientError> {
        let request = self.request(Method::GET, self.url(&["sandboxes", sandbox, "timeline"]));
        self.fetch(request.query(&[("after", after)]).query(&[("limit", limit)])).await
    }

    /// A sandbox as it was: after the event of a position, or at a time (RFC 3339).
    pub async fn sandbox_at(&self, id: &str, moment: &str) -> Result<PastSandbox, ClientError> {
        let request = self.request(Method::GET, self.url(&["sandboxes", id]));
        self.fetch(request.query(&[("at", moment)])).await
    }

    /// What happened to a sandbox, as lines for people, the newest last.
    pub async fn logs(&self, sandbox: &str, lines: Option<u32>) -> Result<Vec<String>, ClientError> {
        let request = self.request(Method::GET, self.url(&["sandboxes", sandbox, "logs"]));
        self.fetch(request.query(&[("lines", lines)])).await
    }

    /// Plays what a sandbox did, with the pauses that it made.
    pub async fn replay(&self, sandbox: &str, query: &ReplayQuery) -> Result<Replay, ClientError> {
        let request = self.request(Method::GET, self.url(&["sandboxes", sandbox, "replay"])).query(query);
        let url = request.build().map_err(|error| self.lost(error))?.url().clone();
        Connection::open(self, url).await.map(Replay)
    }
}
