use std::collections::VecDeque;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{
    EventData, ExecEnd, ExecEvent, ExecId, ExecState, Gone, OutputClosed, OutputStream, Position,
    TerminalSize,
};
use record::StoreError;

use super::{After, Feed, FeedError, FeedReader, Topic};

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
    /// Bytes that were recorded and are not kept any more.
    Gone {
        /// Which stream.
        stream: OutputStream,
        /// Where the first of them stood.
        offset: u64,
        /// The offset that follows the last of them.
        next_offset: u64,
        /// Why they are gone.
        why: Gone,
    },
    /// It began, after it was asked for. Readers that come later see that in [`OutputReader::state`].
    Started,
    /// Its terminal has another size from here on.
    Resized(TerminalSize),
    /// It has ended. Nothing follows, unless something that it left running holds its output open.
    Ended {
        /// How it ended.
        end: ExecEnd,
        /// Whether its output was open then: more follows, and [`Closed`](Self::Closed) in the end.
        open: bool,
    },
    /// Nothing more comes of an exec that had ended with its output open; nothing follows.
    Closed(OutputClosed),
}

/// Reads the output of one exec from byte offsets on: recorded, then live, at one seam.
pub struct OutputReader {
    reader: FeedReader,
    exec: ExecId,
    stdout: u64,
    stderr: u64,
    state: Option<ExecState>,
    /// What is about to be given: holes, and at most one item that is none, at the end.
    ready: VecDeque<OutputItem>,
    /// The end was given.
    ended: bool,
    done: bool,
}

impl OutputReader {
    pub(super) async fn open(feed: &Feed, exec: ExecId, stdout: u64, stderr: u64) -> Result<Self, FeedError> {
        // Listens first; see FeedReader::new.
        let head = feed.head();
        let probe = feed.subscribe(Topic::Exec(exec), After::Position(head));
        // In this order: an exec that began in between has no output yet for the first, and then its beginning is still
        // to come for a reader that begins at the head. The other way round the reader could begin at output of an exec
        // whose state says that it has not begun, and nobody would ever hear that it has.
        let start = feed.record().output.start(exec, stdout, stderr).await?;
        let state = feed.store().exec(exec).await?;
        let after = match start {
            Some(position) => Position(position.0.saturating_sub(1)),
            None => head,
        };
        let reader = feed.subscribe(Topic::Exec(exec), After::Position(after));
        drop(probe);
        Ok(Self { reader, exec, stdout, stderr, state, ready: VecDeque::new(), ended: false, done: false })
    }

    /// A reader of an exec that is about to be started, from its first event on.
    pub fn fresh(feed: &Feed, exec: ExecId) -> Self {
        let reader = feed.subscribe(Topic::Exec(exec), After::Now);
        Self {
            reader,
            exec,
            stdout: 0,
            stderr: 0,
            state: None,
            ready: VecDeque::new(),
            ended: false,
            done: false,
        }
    }

    /// What the record says about the exec; nothing before its first event.
    pub const fn state(&self) -> Option<&ExecState> {
        self.state.as_ref()
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
            if let Some(item) = self.next_recorded().await? {
                return Ok(Some(item));
            }
            if self.done {
                return Ok(None);
            }
            let recorded = self.reader.next().await?;
            self.take(&recorded.event);
        }
    }

    /// The next item that is recorded already; `None` at the live end.
    pub async fn next_recorded(&mut self) -> Result<Option<OutputItem>, FeedError> {
        loop {
            // Holes that touch are one, so they wait for what follows them.
            let complete = !matches!(self.ready.back(), None | Some(OutputItem::Gone { .. }));
            if complete || self.done {
                return Ok(self.ready.pop_front());
            }
            if self.give_end_before() {
                continue;
            }
            if let Some(recorded) = self.reader.next_recorded().await? {
                self.take(&recorded.event);
                continue;
            }
            if self.find_hole().await? {
                continue;
            }
            return Ok(self.ready.pop_front());
        }
    }

    /// Gives the end of an exec that had ended before we came and whose output up to there has all been given, and then, once the rest
    /// has been given too, how its output was closed. The events that say so may stand before the position that we began at.
    fn give_end_before(&mut self) -> bool {
        let Some(state) = &self.state else { return false };
        let Some(end) = &state.end else { return false };
        let was_open = state.output_open || state.output_closed.is_some();
        let lengths = match end.ended().filter(|_| was_open && !self.ended) {
            Some(ended) => [ended.stdout_bytes, ended.stderr_bytes],
            None => [state.stdout_bytes, state.stderr_bytes],
        };
        if self.stdout < lengths[0] || self.stderr < lengths[1] {
            return false;
        }
        if !self.ended {
            let end = end.clone();
            self.end(end, was_open);
            return true;
        }
        match state.output_closed.clone() {
            Some(closed) => {
                self.close(closed);
                true
            }
            None => false,
        }
    }

    /// All of an exec that is over is recorded: asks the store whether what has not come yet is still to come. True: some of it is
    /// not there any more.
    async fn find_hole(&mut self) -> Result<bool, FeedError> {
        let Some(state) = self.state.as_ref().filter(|state| state.is_over()) else {
            return Ok(false);
        };
        let lengths =
            [(OutputStream::Stdout, state.stdout_bytes), (OutputStream::Stderr, state.stderr_bytes)];
        for (stream, recorded) in lengths {
            let from = self.offset(stream);
            if from >= recorded {
                continue;
            }
            match self.reader.record().output.read(self.exec, stream, from, 1).await {
                Err(StoreError::Gone { why, next_offset }) => {
                    self.gone(stream, next_offset.max(from + 1), why);
                    return Ok(true);
                }
                Err(error) => return Err(error.into()),
                // The store is ahead of what was announced.
                Ok(_) => {}
            }
        }
        Ok(false)
    }

    fn seen(&mut self, stream: OutputStream) -> &mut u64 {
        match stream {
            OutputStream::Stdout => &mut self.stdout,
            OutputStream::Stderr => &mut self.stderr,
        }
    }

    /// Gives up on bytes before an offset.
    fn gone(&mut self, stream: OutputStream, next_offset: u64, why: Gone) {
        let from = std::mem::replace(self.seen(stream), next_offset);
        for item in &mut self.ready {
            if let OutputItem::Gone { stream: same, next_offset: last, why: cause, .. } = item
                && (*same, *last, *cause) == (stream, from, why)
            {
                *last = next_offset;
                return;
            }
        }
        self.ready.push_back(OutputItem::Gone { stream, offset: from, next_offset, why });
    }

    fn end(&mut self, end: ExecEnd, open: bool) {
        self.ended = true;
        self.done = !open;
        self.ready.push_back(OutputItem::Ended { end, open });
    }

    fn close(&mut self, closed: OutputClosed) {
        self.done = true;
        self.ready.push_back(OutputItem::Closed(closed));
    }

    fn take(&mut self, event: &events::Event) {
        if let EventData::Exec(ExecEvent::Output(output)) = &event.data {
            let stream = output.stream;
            let seen = *self.seen(stream);
            let end = output.offset + output.length();
            if end <= seen {
                return;
            }
            if output.offset > seen {
                // The record has no holes; so they were dropped.
                self.gone(stream, output.offset, Gone::Expired);
            }
            if let Some(missing) = output.missing {
                self.gone(stream, end, missing.why);
                return;
            }
            let skip = seen.saturating_sub(output.offset);
            *self.seen(stream) = end;
            self.ready.push_back(OutputItem::Output {
                stream,
                offset: output.offset + skip,
                bytes: output
                    .bytes
                    .slice(usize::try_from(skip).unwrap_or(usize::MAX).min(output.bytes.len())..),
                time: event.time,
            });
            return;
        }
        let state = match self.state.take() {
            Some(state) => Some(state),
            None => ExecState::apply(None, event),
        };
        self.state = ExecState::apply(state, event);
        if let EventData::Exec(ExecEvent::Started(_)) = &event.data {
            self.ready.push_back(OutputItem::Started);
        } else if let EventData::Exec(ExecEvent::Resized(resized)) = &event.data {
            self.ready.push_back(OutputItem::Resized(resized.size));
        }
        let Some(state) = &self.state else { return };
        if event.data.exec() != Some(self.exec) {
            return;
        }
        // Only the events that say so end it here, and close it; see `give_end_before` for the rest.
        if let Some(end) = state.end.clone()
            && !self.ended
            && event.data.ends_exec()
        {
            let was_open = state.output_open || state.output_closed.is_some();
            let lengths = match end.ended().filter(|_| was_open) {
                Some(ended) => [ended.stdout_bytes, ended.stderr_bytes],
                None => [state.stdout_bytes, state.stderr_bytes],
            };
            self.give_up_to(lengths);
            self.end(end, was_open);
        } else if let EventData::Exec(ExecEvent::OutputClosed(data)) = &event.data
            && let Some(closed) = state.output_closed.clone()
            && !self.done
        {
            self.give_up_to([data.stdout_bytes, data.stderr_bytes]);
            self.close(closed);
        }
    }

    /// Gives up on what has not come of that which stands before an end.
    fn give_up_to(&mut self, lengths: [u64; 2]) {
        for (stream, bytes) in [OutputStream::Stdout, OutputStream::Stderr].into_iter().zip(lengths) {
            if *self.seen(stream) < bytes {
                self.gone(stream, bytes, Gone::Expired);
            }
        }
    }
}
