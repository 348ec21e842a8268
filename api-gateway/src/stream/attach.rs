//! One viewer of one exec: what is recorded, then what comes, and what the viewer types.

use axum::extract::ws::{Message, WebSocket, close_code};
use bytes::Bytes;
use events::{ExecEnd, Gone, LinkOp, OutputItem, OutputReader, OutputStream};
use futures::stream::SplitStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::attach_frame::{AttachControl, AttachInput, OutputFrame, error, exit};
use super::record::EndRecord;
use super::socket::{CLOSING_PATIENCE, DEAD, PING, PatientSink, SendError, TRY_AGAIN_LATER};
use crate::error::{ApiError, ErrorBody};
use crate::exec::input::{Input, InputQueue, Target};
use crate::metrics::{EXEC_VIEWERS, SLOW_READERS_CLOSED};
use crate::routes::execs::get::Exec;

/// How much output goes into one frame at most, in bytes.
const GATHER_BYTES: usize = 64 << 10;
/// Errors that wait to be told, and resizes and signals that wait to be carried out.
const QUEUE: usize = 32;

/// What a viewer may do, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Whether it may type.
    pub writes: bool,
    /// When its link expires.
    pub until: Option<Instant>,
}

/// An attachment.
pub struct Attachment {
    target: Target,
    terms: Terms,
    output: OutputReader,
    /// What follows on what was sent: where a client goes on from.
    next: [u64; 2],
    /// Read, and not for the frame that it was read for.
    held: Option<OutputItem>,
    started: watch::Sender<bool>,
}

/// Why an attachment ends.
enum Ending {
    /// The exec is over.
    Over(Box<ExecEnd>),
    /// The gateway stops.
    Stopping,
    /// The link that it came with is no longer good.
    Expired,
    /// The record cannot be read.
    Unreadable,
    /// The client takes nothing.
    Blocked,
    /// The client is gone.
    Gone,
}

impl From<SendError> for Ending {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Blocked => Self::Blocked,
            SendError::Gone => Self::Gone,
        }
    }
}

impl Attachment {
    /// An attachment to an exec whose output is read from the offsets that `output` begins at.
    pub fn new(target: Target, terms: Terms, output: OutputReader) -> Self {
        let next = [OutputStream::Stdout, OutputStream::Stderr].map(|stream| output.offset(stream));
        let pending = output.state().is_none_or(|state| state.pending);
        Self { target, terms, output, next, held: None, started: watch::Sender::new(!pending) }
    }

    /// Serves a viewer until one of the two is over. The exec goes on without it.
    pub async fn serve(self, socket: WebSocket) {
        let viewers = metrics::gauge!(EXEC_VIEWERS);
        viewers.increment(1);
        self.converse(socket).await;
        viewers.decrement(1);
    }

    async fn converse(mut self, socket: WebSocket) {
        let (sink, stream) = socket.split();
        let mut sink = PatientSink::new(sink, self.target.gateway.config().slow_reader_limit);
        let (tell, mut told) = mpsc::channel(QUEUE);
        let listener =
            Listener { target: self.target.clone(), terms: self.terms, started: self.started.subscribe() };
        let mut listening =
            AbortOnDropHandle::new(tokio::spawn(listener.run(stream, tell).in_current_span()));
        let ending = self.run(&mut sink, &mut told, &mut listening).await;
        let (code, reason) = match ending {
            Ending::Over(_) => (close_code::NORMAL, String::new()),
            Ending::Stopping => (close_code::RESTART, self.cursor()),
            Ending::Expired => (close_code::POLICY, "the viewer link has expired".to_owned()),
            Ending::Unreadable => (close_code::ERROR, self.cursor()),
            Ending::Blocked => {
                metrics::counter!(SLOW_READERS_CLOSED).increment(1);
                tracing::info!(exec.id = %self.target.exec, "a viewer does not read: closing its connection");
                (TRY_AGAIN_LATER, self.cursor())
            }
            Ending::Gone => return,
        };
        // What the reader holds of the feed is not needed while the close waits for the client.
        drop(self.output);
        sink.close(code, reason).await;
        // Closing with unread frames would reset the connection, and the client could lose what it has not read yet.
        let _ = tokio::time::timeout(CLOSING_PATIENCE, listening).await;
    }

    async fn run(
        &mut self,
        sink: &mut PatientSink,
        told: &mut mpsc::Receiver<ErrorBody>,
        listening: &mut AbortOnDropHandle<()>,
    ) -> Ending {
        match self.talk(sink, told, listening).await {
            Ok(Ending::Over(end)) => match self.last_words(sink, &end).await {
                Ok(()) => Ending::Over(end),
                Err(error) => error.into(),
            },
            Ok(ending) => ending,
            Err(error) => error.into(),
        }
    }

    async fn talk(
        &mut self,
        sink: &mut PatientSink,
        told: &mut mpsc::Receiver<ErrorBody>,
        listening: &mut AbortOnDropHandle<()>,
    ) -> Result<Ending, SendError> {
        self.greet(sink).await?;
        let gateway = self.target.gateway.clone();
        let mut ping = tokio::time::interval_at(Instant::now() + PING, PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let until = self.terms.until;
        let expired = async move {
            match until {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(expired);
        loop {
            let item = tokio::select! {
                biased;
                () = gateway.closing().cancelled() => return Ok(Ending::Stopping),
                () = &mut expired => return Ok(Ending::Expired),
                _ = &mut *listening => return Ok(Ending::Gone),
                Some(failure) = told.recv() => {
                    sink.send(error(&failure)).await?;
                    continue;
                }
                _ = ping.tick() => {
                    sink.send(Message::Ping(Bytes::new())).await?;
                    continue;
                }
                item = next(&mut self.held, &mut self.output) => item,
            };
            match item {
                Ok(Some(OutputItem::Output { stream, offset, bytes, .. })) => {
                    self.output(sink, stream, offset, bytes).await?;
                }
                Ok(Some(OutputItem::Gone { stream, next_offset, why, .. })) => {
                    self.mention_gap(sink, stream, next_offset, Some(why)).await?;
                }
                Ok(Some(OutputItem::Started)) => {
                    if !self.started.send_replace(true) {
                        sink.send(AttachControl::Started.frame()).await?;
                    }
                }
                Ok(Some(OutputItem::Resized(size))) => {
                    let resized = AttachControl::Resized { rows: size.rows, cols: size.cols };
                    sink.send(resized.frame()).await?;
                }
                Ok(Some(OutputItem::Ended(end))) => return Ok(Ending::Over(Box::new(end))),
                Ok(None) => return Ok(Ending::Unreadable),
                Err(error) => {
                    tracing::warn!(exec.id = %self.target.exec, error = %error, "an attachment breaks");
                    return Ok(Ending::Unreadable);
                }
            }
        }
    }

    async fn greet(&self, sink: &mut PatientSink) -> Result<(), SendError> {
        let Some(state) = self.output.state() else { return Ok(()) };
        let attached = AttachControl::Attached {
            mode: if self.terms.writes { "rw" } else { "ro" },
            exec: &Exec::of(state),
            stdout_offset: self.next[0],
            stderr_offset: self.next[1],
        };
        sink.send(attached.frame()).await
    }

    /// Sends output, with all that is there already and fits into the same frame.
    async fn output(
        &mut self,
        sink: &mut PatientSink,
        stream: OutputStream,
        offset: u64,
        mut bytes: Bytes,
    ) -> Result<(), SendError> {
        self.mention_gap(sink, stream, offset, None).await?;
        let mut offset = offset;
        while bytes.len() > GATHER_BYTES {
            let piece = bytes.split_to(GATHER_BYTES);
            let frame = OutputFrame::new(stream, offset, &piece);
            offset += GATHER_BYTES as u64;
            self.send(sink, stream, offset, frame).await?;
        }
        let mut frame = OutputFrame::new(stream, offset, &bytes);
        let mut end = offset + bytes.len() as u64;
        while self.held.is_none() {
            self.held = self.ready().await;
            let Some(OutputItem::Output { stream: other, offset, bytes, .. }) = &self.held else { break };
            if !frame.takes(*other, *offset, bytes.len(), GATHER_BYTES) {
                break;
            }
            frame.push(bytes);
            end = offset + bytes.len() as u64;
            self.held = None;
        }
        self.send(sink, stream, end, frame).await
    }

    async fn send(
        &mut self,
        sink: &mut PatientSink,
        stream: OutputStream,
        end: u64,
        frame: OutputFrame,
    ) -> Result<(), SendError> {
        // Also when it is not taken now: it goes out before the close does.
        self.next[index(stream)] = end;
        sink.send(frame.finish()).await
    }

    /// The next item, if nothing has to be waited for. An error comes again when somebody waits.
    async fn ready(&mut self) -> Option<OutputItem> {
        match self.output.next_recorded().await {
            Ok(Some(item)) => Some(item),
            Ok(None) => self.output.next().now_or_never().and_then(Result::ok).flatten(),
            Err(_) => None,
        }
    }

    /// Says which bytes are not in the record any more.
    async fn mention_gap(
        &mut self,
        sink: &mut PatientSink,
        stream: OutputStream,
        to: u64,
        why: Option<Gone>,
    ) -> Result<(), SendError> {
        let from = self.next[index(stream)];
        if to <= from {
            return Ok(());
        }
        self.next[index(stream)] = to;
        sink.send(AttachControl::Gone { stream: stream.as_str(), from, to, why }.frame()).await
    }

    async fn last_words(&mut self, sink: &mut PatientSink, end: &ExecEnd) -> Result<(), SendError> {
        if let Some(ended) = end.ended().copied() {
            self.mention_gap(sink, OutputStream::Stdout, ended.stdout_bytes, None).await?;
            self.mention_gap(sink, OutputStream::Stderr, ended.stderr_bytes, None).await?;
        }
        sink.send(exit(EndRecord::new(self.target.exec, end, self.next[0], self.next[1]))).await
    }

    /// Where to go on from, as the reason of a close: at most 123 bytes.
    fn cursor(&self) -> String {
        format!("{{\"stdout_offset\":{},\"stderr_offset\":{}}}", self.next[0], self.next[1])
    }
}

const fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

async fn next(
    held: &mut Option<OutputItem>,
    output: &mut OutputReader,
) -> Result<Option<OutputItem>, events::FeedError> {
    match held.take() {
        Some(item) => Ok(Some(item)),
        None => output.next().await,
    }
}

/// Hears what the client says.
struct Listener {
    target: Target,
    terms: Terms,
    started: watch::Receiver<bool>,
}

impl Listener {
    /// Ends when the client goes, or is silent for too long.
    async fn run(self, mut stream: SplitStream<WebSocket>, tell: mpsc::Sender<ErrorBody>) {
        let (target, started) = (self.target.clone(), self.started.clone());
        let mut input: Option<InputQueue> = None;
        let (ops, waiting) = mpsc::channel(QUEUE);
        let _carrier = AbortOnDropHandle::new(tokio::spawn(
            carry(target.clone(), waiting, self.started, tell.clone()).in_current_span(),
        ));
        while let Ok(Some(Ok(message))) = tokio::time::timeout(DEAD, stream.next()).await {
            let read = match message {
                Message::Binary(bytes) => AttachInput::binary(bytes),
                Message::Text(text) => AttachInput::control(text.as_bytes()),
                Message::Ping(_) | Message::Pong(_) => continue,
                Message::Close(_) => return,
            };
            let exec = target.exec;
            let op = match read {
                Ok(_) if !self.terms.writes => {
                    refuse(&tell, ApiError::forbidden("this attachment is read-only"));
                    continue;
                }
                Err(failure) => {
                    refuse(&tell, failure);
                    continue;
                }
                Ok(AttachInput::Stdin(bytes)) => {
                    let queue = input.get_or_insert_with(|| {
                        InputQueue::open(target.clone(), started.clone(), tell.clone())
                    });
                    if !bytes.is_empty() {
                        queue.push(Input::Bytes(bytes)).await;
                    }
                    continue;
                }
                Ok(AttachInput::StdinClose) => {
                    let queue = input.get_or_insert_with(|| {
                        InputQueue::open(target.clone(), started.clone(), tell.clone())
                    });
                    queue.push(Input::Close).await;
                    continue;
                }
                Ok(AttachInput::Resize(size)) => LinkOp::Resize { exec, size },
                Ok(AttachInput::Signal(signal)) => LinkOp::Signal { exec, signal },
                Ok(AttachInput::Kill) => LinkOp::Kill { exec },
            };
            // A carrier that has stopped belongs to an exec that is over.
            let _ = ops.send(op).await;
        }
    }
}

/// Told as far as there is room: a client that floods need not hear of every frame.
fn refuse(tell: &mpsc::Sender<ErrorBody>, failure: ApiError) {
    let _ = tell.try_send(failure.into_body());
}

/// Carries out resizes, signals and kills in their order, beside the input: what is stuck in stdin must not keep a signal
/// from coming through.
async fn carry(
    target: Target,
    mut ops: mpsc::Receiver<LinkOp>,
    mut started: watch::Receiver<bool>,
    tell: mpsc::Sender<ErrorBody>,
) {
    let _ = started.wait_for(|started| *started).await;
    let mut next = None;
    loop {
        let op = match next.take() {
            Some(op) => op,
            None => match ops.recv().await {
                Some(op) => op,
                None => return,
            },
        };
        if let LinkOp::Resize { .. } = op {
            // Of sizes that came while another was on its way, the last one counts.
            next = ops.try_recv().ok();
            if matches!(next, Some(LinkOp::Resize { .. })) {
                continue;
            }
        }
        if let Err(failure) = target.call(op).await {
            refuse(&tell, failure);
        }
    }
}
