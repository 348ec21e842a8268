//! How far execs are recorded: said by the recorder after each commit, heard by executors.
//!
//! An executor lets an agent forget only what is recorded, and reads on only while little is unrecorded. So output that
//! comes faster than it can be written down waits in its sandbox, not in a queue where everybody else waits behind it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use events::{ExecId, ExecState};
use futures::StreamExt;

use super::{ListenError, Log};

/// How far one exec is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExecProgress {
    /// Bytes of stdout.
    pub stdout_bytes: u64,
    /// Bytes of stderr.
    pub stderr_bytes: u64,
    /// Whether its end is recorded.
    pub ended: bool,
    /// Whether its end is recorded and its output is closed: nothing more is to be recorded.
    pub over: bool,
}

impl ExecProgress {
    /// Whether it is at least as far as another.
    pub const fn covers(&self, other: &Self) -> bool {
        self.stdout_bytes >= other.stdout_bytes
            && self.stderr_bytes >= other.stderr_bytes
            && (self.ended || !other.ended)
            && (self.over || !other.over)
    }
}

impl ExecProgress {
    /// That of an exec; `None` of one that was asked for and has not begun by the record: nothing that is said of it is recorded.
    pub fn of(state: &ExecState) -> Option<Self> {
        let begun = !state.pending || state.end.is_some();
        begun.then(|| Self {
            stdout_bytes: state.stdout_bytes,
            stderr_bytes: state.stderr_bytes,
            ended: state.end.is_some(),
            over: state.is_over(),
        })
    }
}

/// The flag of an entry.
const RUNS: u8 = 0;
const OVER: u8 = 1;
/// It has ended, and its output is open.
const OPEN: u8 = 2;
/// Bytes of one entry: id, two offsets, one flag.
const ENTRY: usize = 16 + 8 + 8 + 1;

/// What the recorder says about execs.
pub struct ProgressNews(async_nats::Subscriber);

impl Log {
    /// Says how far execs are recorded. A loss is made good by asking.
    pub async fn say_progress(&self, execs: impl Iterator<Item = (ExecId, ExecProgress)>) {
        let mut payload = BytesMut::new();
        for (id, progress) in execs {
            payload.put_slice(id.as_bytes());
            payload.put_u64(progress.stdout_bytes);
            payload.put_u64(progress.stderr_bytes);
            payload.put_u8(match (progress.ended, progress.over) {
                (_, true) => OVER,
                (true, false) => OPEN,
                (false, false) => RUNS,
            });
        }
        if payload.is_empty() {
            return;
        }
        if let Err(error) = self.client().publish(self.subjects().progress(), payload.freeze()).await {
            tracing::debug!(error = %error, "progress not sent");
        }
    }

    /// Listens to what the recorder says about execs.
    pub async fn progress(&self) -> Result<ProgressNews, ListenError> {
        let subject = self.subjects().progress();
        self.client().subscribe(subject).await.map(ProgressNews).map_err(|_| ListenError)
    }
}

impl ProgressNews {
    /// The next news; `None` when the connection is closed for good.
    pub async fn next(&mut self) -> Option<Vec<(ExecId, ExecProgress)>> {
        let message = self.0.next().await?;
        Some(decode(message.payload))
    }
}

pub(crate) fn decode(mut payload: Bytes) -> Vec<(ExecId, ExecProgress)> {
    let mut news = Vec::with_capacity(payload.len() / ENTRY);
    while payload.remaining() >= ENTRY {
        let mut id = [0; 16];
        payload.copy_to_slice(&mut id);
        let progress = ExecProgress {
            stdout_bytes: payload.get_u64(),
            stderr_bytes: payload.get_u64(),
            ended: false,
            over: false,
        };
        let flag = payload.get_u8();
        let progress = ExecProgress { ended: flag != RUNS, over: flag != RUNS && flag != OPEN, ..progress };
        news.push((ExecId::from_bytes(id), progress));
    }
    news
}
