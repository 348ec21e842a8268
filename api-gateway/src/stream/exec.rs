//! An exec as a sequence of records, whatever they are wrapped in: NDJSON lines or WebSocket frames.

use std::time::Duration;

use api_types::{EndRecord, GoneRecord};
use bytes::BytesMut;
use events::{ExecId, OutputStream};
use feed::{OutputItem, OutputReader};
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::record;
use super::utf8::{Chunk, Utf8Splitter};
use crate::error::ApiError;
use crate::exec::start::Asked;

/// What comes next.
#[derive(Debug)]
pub enum ExecRecord {
    /// Whole characters of one stream.
    Output(OutputStream, Chunk),
    /// Bytes that are not kept any more.
    Gone(GoneRecord),
    /// Nothing has come for a while.
    Silence,
    /// It is over, or at least this stream is. Nothing follows.
    End(Box<EndRecord>),
}

/// Reads an exec and cuts its output into records.
pub struct ExecRecords {
    exec: ExecId,
    output: OutputReader,
    stdout: Utf8Splitter,
    stderr: Utf8Splitter,
    heartbeat: Duration,
    closing: CancellationToken,
    /// What has to go out before anything new is read.
    waiting: Vec<ExecRecord>,
    /// Until something is heard of it.
    asked: Option<Asked>,
    done: bool,
}

impl ExecRecords {
    /// The records of an exec, with [`ExecRecord::Silence`] after each `heartbeat` without any. Ends early when `closing`
    /// is cancelled.
    pub fn new(exec: ExecId, output: OutputReader, heartbeat: Duration, closing: CancellationToken) -> Self {
        Self {
            exec,
            output,
            stdout: Utf8Splitter::default(),
            stderr: Utf8Splitter::default(),
            heartbeat,
            closing,
            waiting: Vec::new(),
            asked: None,
            done: false,
        }
    }

    /// The same of an exec that was just asked for.
    pub fn asked_for(mut self, asked: Option<Asked>) -> Self {
        self.asked = asked;
        self
    }

    /// The exec.
    pub const fn exec(&self) -> ExecId {
        self.exec
    }

    /// The next record; `None` after the end. Cancel safe.
    pub async fn next(&mut self) -> Option<ExecRecord> {
        loop {
            if let Some(record) = self.waiting.pop() {
                return Some(record);
            }
            if self.done {
                return None;
            }
            let item = tokio::select! {
                biased;
                item = self.output.next() => item,
                () = self.closing.cancelled() => {
                    self.interrupt(ApiError::unavailable("the gateway stops"));
                    continue;
                }
                error = failed(&mut self.asked) => {
                    self.interrupt(error);
                    continue;
                }
                () = tokio::time::sleep(self.heartbeat) => return Some(ExecRecord::Silence),
            };
            match item {
                Ok(Some(item)) => {
                    if let Some(record) = self.take(item) {
                        return Some(record);
                    }
                }
                Ok(None) => self.done = true,
                Err(error) => self.interrupt(ApiError::unavailable(error)),
            }
        }
    }

    /// The next record, if it is recorded already.
    pub async fn next_recorded(&mut self) -> Option<ExecRecord> {
        while self.waiting.is_empty() && !self.done {
            let item = match self.output.next_recorded().await {
                // Nothing in the backlog; perhaps something has been announced already.
                Ok(None) => self.output.next().now_or_never().and_then(Result::ok).flatten(),
                Ok(item) => item,
                // An error comes again when somebody waits.
                Err(_) => None,
            };
            let Some(item) = item else { break };
            if let Some(record) = self.take(item) {
                return Some(record);
            }
        }
        self.waiting.pop()
    }

    fn take(&mut self, item: OutputItem) -> Option<ExecRecord> {
        if let Some(asked) = self.asked.take() {
            asked.settle();
        }
        match item {
            OutputItem::Output { stream, offset, bytes, .. } => {
                let splitter = match stream {
                    OutputStream::Stdout => &mut self.stdout,
                    OutputStream::Stderr => &mut self.stderr,
                };
                splitter.push(offset, bytes).map(|chunk| ExecRecord::Output(stream, chunk))
            }
            OutputItem::Gone { stream, offset, next_offset, why } => {
                let splitter = match stream {
                    OutputStream::Stdout => &mut self.stdout,
                    OutputStream::Stderr => &mut self.stderr,
                };
                let gone = record::gone(stream, offset, next_offset, why);
                // Popped from the back: the rest of a character that will never be whole comes first.
                self.waiting.push(ExecRecord::Gone(gone));
                self.waiting.extend(splitter.finish().map(|chunk| ExecRecord::Output(stream, chunk)));
                self.waiting.pop()
            }
            OutputItem::Started | OutputItem::Resized(_) | OutputItem::Closed(_) => None,
            OutputItem::Ended { end, .. } => {
                let (stdout, stderr) = self.offsets();
                self.finish(record::end(self.exec, &end, stdout, stderr));
                None
            }
        }
    }

    fn interrupt(&mut self, error: ApiError) {
        let (stdout, stderr) = self.offsets();
        self.finish(record::interrupted(self.exec, error.into_body(), stdout, stderr));
    }

    fn offsets(&self) -> (u64, u64) {
        (self.output.offset(OutputStream::Stdout), self.output.offset(OutputStream::Stderr))
    }

    fn finish(&mut self, end: EndRecord) {
        self.done = true;
        // Popped from the back: the rest of both streams comes before the end.
        self.waiting.push(ExecRecord::End(Box::new(end)));
        self.waiting
            .extend(self.stderr.finish().map(|chunk| ExecRecord::Output(OutputStream::Stderr, chunk)));
        self.waiting
            .extend(self.stdout.finish().map(|chunk| ExecRecord::Output(OutputStream::Stdout, chunk)));
    }
}

/// Why nothing will be heard of it. Waits for ever where that is not known.
pub async fn failed(asked: &mut Option<Asked>) -> ApiError {
    match asked {
        Some(asked) => asked.failed().await,
        None => std::future::pending().await,
    }
}

impl ExecRecord {
    /// Appends the record as a line of NDJSON.
    pub fn write_line(&self, into: &mut BytesMut) {
        match self {
            Self::Output(stream, chunk) => record::write_line(&record::output(*stream, chunk), into),
            Self::Gone(gone) => record::write_line(gone, into),
            Self::Silence => into.extend_from_slice(b"\n"),
            Self::End(end) => record::write_line(end, into),
        }
    }
}
