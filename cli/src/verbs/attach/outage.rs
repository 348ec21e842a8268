//! What the user sees of a server that is away.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

/// Shorter ones are not worth a word.
const TELL_AFTER: Duration = Duration::from_secs(2);
const BELL: &[u8] = b"\x07";
/// The line below the cursor is used, and the cursor comes back to where it is. `\n` alone, because a terminal in raw mode
/// moves straight down: should it scroll, the cursor has scrolled with the text.
const TOLD: &[u8] = b"\n\x1b[A\x1b7\r\n\x1b[2K\x1b[0;2mstacyvm: the server is away, trying again\x1b[0m\x1b8";
const ERASED: &[u8] = b"\x1b7\x1b[B\r\x1b[2K\x1b8";

/// A time without a connection.
pub struct Outage {
    tell_at: Option<Instant>,
    /// Whether a line on the screen is ours.
    has_line: bool,
}

impl Outage {
    /// It begins.
    pub fn begin() -> Self {
        Self { tell_at: Some(Instant::now() + TELL_AFTER), has_line: false }
    }

    /// Waits until it is long; once. Cancel safe.
    pub async fn is_long(&mut self) {
        match self.tell_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
        self.tell_at = None;
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
