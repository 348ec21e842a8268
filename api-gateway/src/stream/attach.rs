//! One viewer of one exec: what is recorded, then what comes, and what the viewer types.

use std::sync::{Arc, Mutex, PoisonError};

use events::{ExecId, ExecState, Gone, OutputStream};
use feed::{FeedError, OutputItem, OutputReader};
use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;
use transport::LinkOp;

use super::attach_frame::{AttachControl, AttachInput, OutputFrame, error, exit};
use super::record;
use super::socket::{Listener, Socket, Speaker, Terms, Word};
use crate::error::{ApiError, ErrorBody};
use crate::exec::input::{Input, InputQueue, Target};
use crate::exec::shown::shown;
use crate::metrics::EXEC_VIEWERS;
use crate::stream::presence::Presence;

/// How much output goes into one frame at most, in bytes.
const GATHER_BYTES: usize = 64 << 10;
/// Errors that wait to be told, and resizes and signals that wait to be carried out.
const QUEUE: usize = 32;

/// What a viewer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    /// Whether it may type.
    pub writes: bool,
}

/// Serves a viewer of an exec, whose output is read from the offsets that `output` begins at, until one of the two is
/// over. The exec goes on without it.
pub async fn serve(target: Target, rights: Rights, output: OutputReader, socket: Socket) {
    let viewers = metrics::gauge!(EXEC_VIEWERS);
    viewers.increment(1);
    let pending = output.state().is_none_or(|state| state.pending);
    let (started, is_started) = watch::channel(!pending);
    let (tell, asides) = mpsc::channel(QUEUE);
    let (ops, waiting) = mpsc::channel(QUEUE);
    let carrier =
        tokio::spawn(carry(target.clone(), waiting, is_started.clone(), tell.clone()).in_current_span());
    let terms = Terms { watching: target.caller.viewer.clone(), ..Terms::of(&target.gateway) };
    let typist = Typist {
        target: target.clone(),
        writes: rights.writes,
        started: is_started,
        input: None,
        ops,
        tell,
        _carrier: AbortOnDropHandle::new(carrier),
    };
    let output = Output::new(target.exec, rights, output, started);
    let (presence, said) = (Presence::begin(&target, rights.writes, output.next), Arc::clone(&output.said));
    let how = socket.converse(terms, output, typist, asides).await;
    viewers.decrement(1);
    if let Some(presence) = presence {
        let said = *said.lock().unwrap_or_else(PoisonError::into_inner);
        presence.end(how, said).await;
    }
}

/// What an attachment reads: an exec's output, from some offsets on.
trait Source: Send {
    /// What the record said of the exec when the reader came.
    fn state(&self) -> Option<&ExecState>;
    /// The offset that follows what was read of a stream.
    fn offset(&self, stream: OutputStream) -> u64;
    /// The next item, as soon as there is one; `None` after the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<OutputItem>, FeedError>> + Send;
    /// The next item that is recorded already; `None` at the live end.
    fn next_recorded(&mut self) -> impl Future<Output = Result<Option<OutputItem>, FeedError>> + Send;
}

impl Source for OutputReader {
    fn state(&self) -> Option<&ExecState> {
        self.state()
    }

    fn offset(&self, stream: OutputStream) -> u64 {
        self.offset(stream)
    }

    fn next(&mut self) -> impl Future<Output = Result<Option<OutputItem>, FeedError>> + Send {
        self.next()
    }

    fn next_recorded(&mut self) -> impl Future<Output = Result<Option<OutputItem>, FeedError>> + Send {
        self.next_recorded()
    }
}

/// Says what the exec writes.
struct Output<S> {
    exec: ExecId,
    writes: bool,
    output: S,
    /// What follows on what was said: where a client goes on from.
    next: [u64; 2],
    /// The same, for whoever asks when this is over.
    said: Arc<Mutex<[u64; 2]>>,
    /// What had been written when the client came.
    scrollback: [u64; 2],
    /// Read, and not said yet.
    held: Option<OutputItem>,
    stage: Stage,
    started: watch::Sender<bool>,
}

/// What was said already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Nothing.
    Begun,
    /// Which exec it is. Scrollback follows.
    Greeted,
    /// That what follows is live.
    Live,
    /// How it ended. What it left running still writes.
    Ended,
    /// That nothing more comes.
    Over,
}

impl<S: Source> Speaker for Output<S> {
    async fn next(&mut self) -> Word {
        match self.stage {
            Stage::Begun => {
                self.stage = Stage::Greeted;
                if let Some(state) = self.output.state() {
                    return Word::Say(self.greeting(state));
                }
            }
            Stage::Over => return Word::Done,
            Stage::Greeted | Stage::Live | Stage::Ended => {}
        }
        loop {
            if self.stage == Stage::Greeted && self.is_caught_up() {
                return Word::Say(self.live());
            }
            let item = match self.held.take() {
                Some(item) => Ok(Some(item)),
                None => self.output.next().await,
            };
            let said = match item {
                Ok(Some(item)) => self.take(item).await,
                Ok(None) => return Word::Broken,
                Err(error) => {
                    tracing::warn!(exec.id = %self.exec, error = %error, "an attachment breaks");
                    return Word::Broken;
                }
            };
            if let Some(message) = said {
                return Word::Say(message);
            }
        }
    }

    fn error(body: ErrorBody) -> Message {
        error(&body)
    }

    fn cursor(&self) -> String {
        format!("{{\"stdout_offset\":{},\"stderr_offset\":{}}}", self.next[0], self.next[1])
    }
}

impl<S> Drop for Output<S> {
    fn drop(&mut self) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = self.next;
    }
}

impl<S: Source> Output<S> {
    fn new(exec: ExecId, rights: Rights, output: S, started: watch::Sender<bool>) -> Self {
        let next = [OutputStream::Stdout, OutputStream::Stderr].map(|stream| output.offset(stream));
        let scrollback = output.state().map_or([0, 0], |state| [state.stdout_bytes, state.stderr_bytes]);
        let stage = Stage::Begun;
        let said = Arc::new(Mutex::new(next));
        Self { exec, writes: rights.writes, output, next, said, scrollback, held: None, stage, started }
    }

    fn greeting(&self, state: &ExecState) -> Message {
        let attached = AttachControl::Attached {
            mode: if self.writes { "rw" } else { "ro" },
            exec: &shown(state),
            stdout_offset: self.next[0],
            stderr_offset: self.next[1],
        };
        attached.frame()
    }

    fn is_caught_up(&self) -> bool {
        self.next.iter().zip(self.scrollback).all(|(next, before)| *next >= before)
    }

    fn live(&mut self) -> Message {
        self.stage = Stage::Live;
        AttachControl::Live { stdout_offset: self.next[0], stderr_offset: self.next[1] }.frame()
    }

    /// What there is to say about an item. What is not said now is held.
    async fn take(&mut self, item: OutputItem) -> Option<Message> {
        match item {
            OutputItem::Output { stream, offset, ref bytes, time } => {
                if let Some(gap) = self.gap(stream, offset, None) {
                    self.held = Some(item);
                    return Some(gap);
                }
                let mut bytes = bytes.clone();
                let piece = bytes.split_to(bytes.len().min(self.room(stream, offset)));
                let frame = OutputFrame::new(stream, offset, &piece);
                let end = offset + piece.len() as u64;
                if !bytes.is_empty() {
                    self.held = Some(OutputItem::Output { stream, offset: end, bytes, time });
                }
                Some(self.gather(stream, end, frame).await)
            }
            OutputItem::Gone { stream, next_offset, why, .. } => self.gap(stream, next_offset, Some(why)),
            OutputItem::Started => (!self.started.send_replace(true)).then(|| AttachControl::Started.frame()),
            OutputItem::Resized(size) => {
                Some(AttachControl::Resized { rows: size.rows, cols: size.cols }.frame())
            }
            OutputItem::Ended { ref end, open } => {
                let ended = end.ended().copied();
                let gap = ended.and_then(|ended| {
                    self.gap(OutputStream::Stdout, ended.stdout_bytes, None)
                        .or_else(|| self.gap(OutputStream::Stderr, ended.stderr_bytes, None))
                });
                // All there ever will be has been said: that is the end of the scrollback too.
                let before = gap.or_else(|| (self.stage == Stage::Greeted).then(|| self.live()));
                if before.is_some() {
                    self.held = Some(item);
                    return before;
                }
                self.stage = if open { Stage::Ended } else { Stage::Over };
                Some(exit(record::end(self.exec, end, self.next[0], self.next[1])))
            }
            OutputItem::Closed(closed) => {
                self.stage = Stage::Over;
                let [stdout_offset, stderr_offset] = self.next;
                let reason = closed.reason;
                Some(AttachControl::OutputClosed { reason, stdout_offset, stderr_offset }.frame())
            }
        }
    }

    /// How many bytes may go into one frame: none that are written live with those that are not.
    fn room(&self, stream: OutputStream, offset: u64) -> usize {
        let before = self.scrollback[index(stream)].saturating_sub(offset);
        if matches!(self.stage, Stage::Live | Stage::Ended) || before == 0 {
            return GATHER_BYTES;
        }
        usize::try_from(before).unwrap_or(GATHER_BYTES).min(GATHER_BYTES)
    }

    /// Adds to a frame what is there already and fits into it.
    async fn gather(&mut self, stream: OutputStream, mut end: u64, mut frame: OutputFrame) -> Message {
        while self.held.is_none() {
            self.held = self.ready().await;
            let Some(OutputItem::Output { stream: other, offset, bytes, .. }) = &self.held else { break };
            let is_past =
                self.stage == Stage::Greeted && offset + bytes.len() as u64 > self.scrollback[index(*other)];
            if is_past || !frame.takes(*other, *offset, bytes.len(), GATHER_BYTES) {
                break;
            }
            frame.push(bytes);
            end = offset + bytes.len() as u64;
            self.held = None;
        }
        self.next[index(stream)] = end;
        frame.finish()
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
    fn gap(&mut self, stream: OutputStream, to: u64, why: Option<Gone>) -> Option<Message> {
        let from = self.next[index(stream)];
        if to <= from {
            return None;
        }
        self.next[index(stream)] = to;
        Some(AttachControl::Gone { stream: stream.as_str(), from, to, why }.frame())
    }
}

const fn index(stream: OutputStream) -> usize {
    match stream {
        OutputStream::Stdout => 0,
        OutputStream::Stderr => 1,
    }
}

/// Takes what the client types.
struct Typist {
    target: Target,
    writes: bool,
    started: watch::Receiver<bool>,
    input: Option<InputQueue>,
    ops: mpsc::Sender<LinkOp>,
    tell: mpsc::Sender<ErrorBody>,
    _carrier: AbortOnDropHandle<()>,
}

impl Listener for Typist {
    async fn hear(&mut self, message: Message) -> Result<(), ApiError> {
        let exec = self.target.exec;
        let read = if let Message::Text(text) = message {
            AttachInput::control(text.as_bytes())
        } else {
            AttachInput::binary(message.into_data())
        };
        let op = match read {
            Ok(_) if !self.writes => {
                refuse(&self.tell, ApiError::forbidden("this attachment is read-only"));
                return Ok(());
            }
            Err(failure) => {
                refuse(&self.tell, failure);
                return Ok(());
            }
            Ok(AttachInput::Stdin(bytes)) => {
                let input = self.input();
                if !bytes.is_empty() {
                    input.push(Input::Bytes(bytes)).await;
                }
                return Ok(());
            }
            Ok(AttachInput::StdinClose) => {
                self.input().push(Input::Close).await;
                return Ok(());
            }
            Ok(AttachInput::Resize(size)) => LinkOp::Resize { exec, size },
            Ok(AttachInput::Signal(signal)) => LinkOp::Signal { exec, signal },
            Ok(AttachInput::Kill) => LinkOp::Kill { exec },
        };
        // A carrier that has stopped belongs to an exec that is over.
        let _ = self.ops.send(op).await;
        Ok(())
    }

    async fn settle(self) {
        if let Some(input) = self.input {
            input.finish().await;
        }
    }
}

impl Typist {
    fn input(&mut self) -> &InputQueue {
        self.input.get_or_insert_with(|| {
            InputQueue::open(self.target.clone(), self.started.clone(), self.tell.clone())
        })
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

#[cfg(test)]
#[path = "attach_tests.rs"]
mod tests;
