//! The server is away: trying again, and what the user sees of that.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::client::api::Api;
use crate::client::error::ClientError;
use crate::client::offsets::Offsets;
use crate::client::patience::Patience;
use crate::client::websocket::Connection;

/// How long a server may be away before we stop asking for it.
const RECONNECT: Duration = Duration::from_secs(120);
/// Shorter ones are not worth a word.
const TELL_AFTER: Duration = Duration::from_secs(2);
const BELL: &[u8] = b"\x07";
/// The line below the cursor is used, and the cursor comes back to where it is. `\n` alone, because a terminal in raw mode
/// moves straight down: should it scroll, the cursor has scrolled with the text.
const TOLD: &[u8] = b"\n\x1b[A\x1b7\r\n\x1b[2K\x1b[0;2mstacyvm: the server is away, trying again\x1b[0m\x1b8";
const ERASED: &[u8] = b"\x1b7\x1b[B\r\x1b[2K\x1b8";

/// A time without a connection.
pub struct Outage {
    attempt: BoxFuture<'static, Result<Connection, ClientError>>,
    tell_at: Option<Instant>,
    /// Whether a line on the screen is ours.
    has_line: bool,
}

/// What comes of it.
pub enum Change {
    /// It is over.
    Over(Connection),
    /// It is long.
    Long,
}

/// Which exec to go on with, and from where.
#[derive(Debug, Clone)]
pub struct Target {
    pub exec: String,
    pub read_only: bool,
    /// Right after it was started, a server may not know it yet.
    pub is_new: bool,
}

impl Outage {
    /// Begins to try.
    pub fn begin(api: &Api, target: Target, offsets: Offsets, hurries: bool) -> Self {
        let api = api.clone();
        let attempt = Box::pin(async move {
            let mut patience = Patience::new(RECONNECT);
            if !hurries {
                patience.again().await;
            }
            loop {
                match connect(&api, &target, offsets).await {
                    Err(error) if error.is_passing() || target.is_new && error.is_not_found() => {
                        if !patience.again().await {
                            return Err(error);
                        }
                    }
                    outcome => return outcome,
                }
            }
        });
        Self { attempt, tell_at: Some(Instant::now() + TELL_AFTER), has_line: false }
    }

    /// Cancel safe.
    pub async fn next(&mut self) -> Result<Change, ClientError> {
        let Self { attempt, tell_at, .. } = self;
        let long = async {
            match tell_at {
                Some(at) => tokio::time::sleep_until(*at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            connection = attempt => connection.map(Change::Over),
            () = long => {
                *tell_at = None;
                Ok(Change::Long)
            }
        }
    }

    /// What tells of it on a terminal in raw mode. Over a full-screen program nothing can be written without harm.
    pub fn tell(&mut self, is_alternate: bool) -> Bytes {
        self.has_line = !is_alternate;
        Bytes::from_static(if is_alternate { BELL } else { TOLD })
    }

    /// What takes that away again.
    pub fn erase(&self) -> Bytes {
        Bytes::from_static(if self.has_line { ERASED } else { b"" })
    }
}

/// Connects once.
pub async fn connect(api: &Api, target: &Target, offsets: Offsets) -> Result<Connection, ClientError> {
    let mut url = api.url(&["execs", &target.exec, "attach"]);
    url.query_pairs_mut()
        .append_pair("mode", if target.read_only { "ro" } else { "rw" })
        .append_pair("stdout_offset", &offsets.stdout.to_string())
        .append_pair("stderr_offset", &offsets.stderr.to_string());
    Connection::open(api, url).await
}
