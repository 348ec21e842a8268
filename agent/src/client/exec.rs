use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, Notify};

use super::CallError;
use super::bounds::{Place, is_possible};
use super::connect::{Call, Reader, SendError, Writer, bounded, reply, unexpected};
use crate::protocol::{
    AttachRefusal, ClosedOutput, ExecOutcome, Input, MAX_CHUNK, Refusal, Reply, STDIN_WINDOW, Started,
    Stream, TerminalSize,
};

/// Attached to an exec. Dropping it leaves the exec running, its output kept by the agent.
pub struct ExecConnection {
    pub started: Started,
    reader: ExecReader,
    writer: ExecWriter,
}

impl ExecConnection {
    pub(super) async fn begin<E: TryFrom<Refusal>>(
        mut call: Call,
        offsets: [u64; 2],
    ) -> Result<Self, CallError<E>> {
        let started = match call.reply().await? {
            // No process of a sandbox has taken so much.
            Reply::Started(started) if started.stdin_offset < u64::MAX / 2 => started,
            other => return Err(call.unexpected(&other)),
        };
        let stdin = Arc::new(StdinWindow {
            taken: AtomicU64::new(started.stdin_offset),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
        });
        // From here on nothing is longer than a piece of output and what stands before it.
        call.reader.limit(MAX_CHUNK + 64);
        let reader = ExecReader {
            reader: call.reader,
            offsets,
            stdin: Arc::clone(&stdin),
            over: false,
            open: false,
            _place: call.place,
        };
        let sending = Sending { writer: call.writer, stdin_sent: started.stdin_offset, broken: false };
        let writer = ExecWriter { sending: Arc::new(Mutex::new(sending)), stdin };
        Ok(Self { started, reader, writer })
    }

    pub async fn next(&mut self) -> Result<Option<ExecEvent>, CallError<AttachRefusal>> {
        self.reader.next().await
    }

    pub fn writer(&self) -> &ExecWriter {
        &self.writer
    }

    pub fn split(self) -> (ExecReader, ExecWriter) {
        (self.reader, self.writer)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExecEvent {
    /// Output, in order and without gaps per stream.
    Output { stream: Stream, offset: u64, bytes: Bytes },
    /// The last event; both streams are complete.
    Exited(ExecOutcome),
    /// It has ended, and something that it left running holds its output open: more output may follow, and `OutputClosed` does.
    ExitedOpen(ExecOutcome),
    /// The last event after `ExitedOpen`; both streams are complete.
    OutputClosed(ClosedOutput),
    /// Somebody else attached; the last event.
    Superseded,
}

/// What happens to an exec, as it happens.
pub struct ExecReader {
    reader: Reader,
    /// Next byte per stream.
    offsets: [u64; 2],
    stdin: Arc<StdinWindow>,
    over: bool,
    /// It has ended with its output open.
    open: bool,
    _place: Place,
}

impl ExecReader {
    /// The next event; `None` after the last. Cancel safe. Must be polled while stdin is being
    /// written: the agent's word that it took stdin comes this way.
    pub async fn next(&mut self) -> Result<Option<ExecEvent>, CallError<AttachRefusal>> {
        const OPERATION: &str = "read exec";
        /// News of stdin in a row, from which on they are taken slowly.
        const MOST_TOLD: u32 = 64;
        const PAUSE: Duration = Duration::from_millis(10);
        let mut told = 0;
        if self.over {
            return Ok(None);
        }
        loop {
            let received = reply(OPERATION, &mut self.reader).await.inspect_err(|_| self.stdin.close())?;
            match received {
                Reply::Output { stream, offset, bytes } => {
                    let expected = &mut self.offsets[stream.index()];
                    if offset != *expected || bytes.is_empty() || bytes.len() > MAX_CHUNK {
                        return Err(self.violation(format!("{stream} chunk of {} at {offset}", bytes.len())));
                    }
                    let Some(end) = offset.checked_add(bytes.len() as u64) else {
                        return Err(self.violation(format!("{stream} offset overflow")));
                    };
                    *expected = end;
                    return Ok(Some(ExecEvent::Output { stream, offset, bytes }));
                }
                Reply::StdinTaken { offset } => {
                    self.stdin.advance(offset);
                    told += 1;
                    if told > MOST_TOLD {
                        // Nobody types so fast: it is not worth more of our time than this.
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                Reply::Exited(outcome) if !self.open => {
                    if !is_possible(&outcome) {
                        return Err(self.violation("an end that no process has".to_owned()));
                    }
                    if [outcome.stdout_len, outcome.stderr_len] != self.offsets {
                        return Err(self.violation("exit before the end of output".to_owned()));
                    }
                    self.over = true;
                    self.stdin.close();
                    return Ok(Some(ExecEvent::Exited(outcome)));
                }
                Reply::ExitedOpen(outcome) if !self.open => {
                    if !is_possible(&outcome) {
                        return Err(self.violation("an end that no process has".to_owned()));
                    }
                    // Whoever attaches later may be further on already.
                    if outcome.stdout_len > self.offsets[0] || outcome.stderr_len > self.offsets[1] {
                        return Err(self.violation("exit before the end of output".to_owned()));
                    }
                    self.open = true;
                    self.stdin.close();
                    return Ok(Some(ExecEvent::ExitedOpen(outcome)));
                }
                Reply::OutputClosed(closed) if self.open => {
                    if [closed.stdout_len, closed.stderr_len] != self.offsets {
                        return Err(self.violation("closed before the end of output".to_owned()));
                    }
                    self.over = true;
                    return Ok(Some(ExecEvent::OutputClosed(closed)));
                }
                Reply::Superseded => {
                    self.over = true;
                    self.stdin.close();
                    return Ok(Some(ExecEvent::Superseded));
                }
                other => {
                    self.over = true;
                    self.stdin.close();
                    return Err(unexpected(OPERATION, &other));
                }
            }
        }
    }

    /// Next byte of a stream: where a later attach goes on.
    pub fn offset(&self, stream: Stream) -> u64 {
        self.offsets[stream.index()]
    }

    fn violation(&mut self, detail: String) -> CallError<AttachRefusal> {
        self.over = true;
        self.stdin.close();
        CallError::Violation { operation: "read exec", detail }
    }
}

impl Drop for ExecReader {
    /// Nobody is left to hear that stdin was taken: writers must not wait for it.
    fn drop(&mut self) {
        self.stdin.close();
    }
}

/// Speaks to an attached exec. Clones share the connection.
#[derive(Clone)]
pub struct ExecWriter {
    sending: Arc<Mutex<Sending>>,
    stdin: Arc<StdinWindow>,
}

struct Sending {
    writer: Writer,
    stdin_sent: u64,
    /// A message was sent in part, or not taken: nothing can follow it.
    broken: bool,
}

impl ExecWriter {
    /// Bytes of `stream` below `offset` are safe; the agent may forget them.
    pub async fn ack(&self, stream: Stream, offset: u64) -> io::Result<()> {
        self.send(Input::Ack { stream, offset }).await
    }

    /// Writes any amount to the exec's stdin, as fast as the exec takes it. Fails with `BrokenPipe`
    /// when the exec or the connection is over. Not for several tasks at once: their bytes would mix.
    pub async fn stdin(&self, mut bytes: Bytes) -> io::Result<()> {
        while !bytes.is_empty() {
            let changed = self.stdin.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.stdin.closed.load(Ordering::Acquire) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let mut sending = self.sending.lock().await;
            let outstanding = sending.stdin_sent.saturating_sub(self.stdin.taken.load(Ordering::Acquire));
            let room = STDIN_WINDOW.saturating_sub(outstanding).min(64 * 1024);
            if room == 0 {
                drop(sending);
                changed.await;
                continue;
            }
            let chunk = bytes.split_to(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            sending.stdin_sent += chunk.len() as u64;
            sending.send(Input::Stdin { bytes: chunk }).await?;
        }
        Ok(())
    }

    pub async fn close_stdin(&self) -> io::Result<()> {
        self.send(Input::CloseStdin).await
    }

    pub async fn resize(&self, size: TerminalSize) -> io::Result<()> {
        self.send(Input::Resize { size }).await
    }

    /// Sends a signal to the process group.
    pub async fn signal(&self, signal: i32) -> io::Result<()> {
        self.send(Input::Signal { signal }).await
    }

    async fn send(&self, input: Input) -> io::Result<()> {
        self.sending.lock().await.send(input).await
    }
}

impl Sending {
    async fn send(&mut self, input: Input) -> io::Result<()> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let sent = bounded(async {
            self.writer.send(&input).await?;
            self.writer.flush().await
        });
        match sent.await {
            Ok(()) => {
                self.broken = false;
                Ok(())
            }
            Err(SendError::Silent(_)) => Err(io::ErrorKind::TimedOut.into()),
            Err(SendError::Frame(crate::protocol::FrameError::Io(error))) => Err(error),
            Err(SendError::Frame(other)) => Err(io::Error::new(io::ErrorKind::InvalidInput, other)),
        }
    }
}

struct StdinWindow {
    taken: AtomicU64,
    closed: AtomicBool,
    changed: Notify,
}

impl StdinWindow {
    fn advance(&self, taken: u64) {
        self.taken.fetch_max(taken, Ordering::AcqRel);
        self.changed.notify_waiters();
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }
}
