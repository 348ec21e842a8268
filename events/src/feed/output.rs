use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{After, Feed, FeedError, FeedReader, Topic};
use crate::{EventData, ExecEnd, ExecId, ExecState, OutputStream, Position};

/// What an [`OutputReader`] gives.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputItem {
    /// Bytes, in order in their stream.
    Output {
        /// Which stream.
        stream: OutputStream,
        /// Where the first byte stands.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
        /// When they were seen.
        time: DateTime<Utc>,
    },
    /// It is over; nothing follows.
    Ended(ExecEnd),
}

/// Reads the output of one exec from byte offsets on: recorded, then live, at one seam.
pub struct OutputReader {
    reader: FeedReader,
    exec: ExecId,
    stdout: u64,
    stderr: u64,
    state: Option<ExecState>,
    done: bool,
}

impl OutputReader {
    pub(super) async fn open(feed: &Feed, exec: ExecId, stdout: u64, stderr: u64) -> Result<Self, FeedError> {
        // Listens first; see FeedReader::new.
        let head = feed.head();
        let probe = feed.subscribe(Topic::Exec(exec), After::Position(head));
        let state = feed.store().exec(exec).await?;
        let start = feed.store().output_start(exec, stdout, stderr).await?;
        let after = match start {
            Some(position) => Position(position.0.saturating_sub(1)),
            None => head,
        };
        let reader = feed.subscribe(Topic::Exec(exec), After::Position(after));
        drop(probe);
        Ok(Self { reader, exec, stdout, stderr, state, done: false })
    }

    /// A reader of an exec that is about to be started, from its first event on.
    pub fn fresh(feed: &Feed, exec: ExecId) -> Self {
        let reader = feed.subscribe(Topic::Exec(exec), After::Now);
        Self { reader, exec, stdout: 0, stderr: 0, state: None, done: false }
    }

    /// The offset that follows what was given of a stream.
    pub const fn offset(&self, stream: OutputStream) -> u64 {
        match stream {
            OutputStream::Stdout => self.stdout,
            OutputStream::Stderr => self.stderr,
        }
    }

    /// The next item, as soon as there is one; `None` after the end.
    pub async fn next(&mut self) -> Result<Option<OutputItem>, FeedError> {
        loop {
            if self.done {
                return Ok(None);
            }
            if let Some(end) = self.ended_before() {
                self.done = true;
                return Ok(Some(OutputItem::Ended(end)));
            }
            let recorded = self.reader.next().await?;
            if let Some(item) = self.item(&recorded.event) {
                return Ok(Some(item));
            }
        }
    }

    /// The next item that is recorded already; `None` at the live end.
    pub async fn next_recorded(&mut self) -> Result<Option<OutputItem>, FeedError> {
        while !self.done {
            if let Some(end) = self.ended_before() {
                self.done = true;
                return Ok(Some(OutputItem::Ended(end)));
            }
            let Some(recorded) = self.reader.next_recorded().await? else {
                return Ok(None);
            };
            if let Some(item) = self.item(&recorded.event) {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// The end of an exec that had ended before we came and whose output has all been given. Its terminal event may
    /// stand before the position that we began at.
    fn ended_before(&self) -> Option<ExecEnd> {
        let state = self.state.as_ref()?;
        let all = self.stdout >= state.stdout_bytes && self.stderr >= state.stderr_bytes;
        if all { state.end.clone() } else { None }
    }

    fn item(&mut self, event: &crate::Event) -> Option<OutputItem> {
        if let EventData::ExecOutput(output) = &event.data {
            let seen = match output.stream {
                OutputStream::Stdout => &mut self.stdout,
                OutputStream::Stderr => &mut self.stderr,
            };
            let end = output.offset + output.bytes.len() as u64;
            if end <= *seen {
                return None;
            }
            let skip = seen.saturating_sub(output.offset);
            let offset = output.offset + skip;
            *seen = end;
            let bytes =
                output.bytes.slice(usize::try_from(skip).unwrap_or(usize::MAX).min(output.bytes.len())..);
            return Some(OutputItem::Output { stream: output.stream, offset, bytes, time: event.time });
        }
        let state = match self.state.take() {
            Some(state) => Some(state),
            None => ExecState::apply(None, event),
        };
        self.state = ExecState::apply(state, event);
        let end = self.state.as_ref().and_then(|state| state.end.clone());
        match end {
            // Only a terminal event of this exec itself ends it here; see `ended_before` for the rest.
            Some(end) if event.data.exec() == Some(self.exec) && is_terminal(&event.data) => {
                self.done = true;
                Some(OutputItem::Ended(end))
            }
            _ => None,
        }
    }
}

const fn is_terminal(data: &EventData) -> bool {
    matches!(
        data,
        EventData::ExecExited(_)
            | EventData::ExecTimedOut(_)
            | EventData::ExecKilled(_)
            | EventData::ExecFailed(_)
            | EventData::ExecOutcomeUnknown(_)
    )
}
