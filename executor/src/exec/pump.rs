//! One pump an exec: reads what its agent says, hands it to the [`Outbox`], and lets the agent forget what is recorded.

use std::sync::Arc;
use std::time::Duration;

use agent::client::{CallError, ExecConnection, ExecEvent, ExecReader, ExecWriter};
use agent::protocol::{
    self, Attach, AttachRefusal, ClosedOutput, ExecOutcome, KillCause, Left, OutputEnd, Stream,
};
use bytes::Bytes;
use events::{
    Asked, EndCause, Event, EventData, ExecEnded, ExecExited, ExecId, ExecKilled, ExecOutcomeUnknown,
    ExecOutput, ExecOutputClosed, ExecStarted, ExecTimedOut, OutputCloseReason, OutputStream,
};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::ExecProgress;

use super::masking::Masking;
use super::merge::FULL_PIECE;
use super::outbox::Outbox;
use super::way::Way;
use crate::context::Context;
use crate::hosted::Hosted;
use crate::recorded::{Following, Recorded};

/// How long the news of a start waits for company: a short exec is one message.
const COMPANY: Duration = Duration::from_millis(2);
/// For how long, and how often, a lost connection to an agent is tried again before its sandbox counts as gone. The pause
/// grows: where one agent is gone, hundreds of pumps may be waiting for it.
const RETRY_FOR: Duration = Duration::from_secs(10);
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(2);
/// How long the agent has for each try.
const RETRY_ASK: Duration = Duration::from_secs(5);
/// When nothing was recorded for this long though something should be, the record is asked.
const SILENCE: Duration = Duration::from_secs(2);
/// When it stands still for so many questions, what was published is lost, and is read again from the agent.
const STALLS: u32 = 3;
/// What an exec gets first when its end is asked for, and when its sandbox ends.
pub const SIGTERM: i32 = 15;
const SIGKILL: i32 = 9;

/// How much of the two streams: stdout, stderr.
pub type Offsets = [u64; 2];

/// An exec that is to be pumped.
pub struct Exec<W> {
    pub id: ExecId,
    pub hosted: Arc<Hosted>,
    pub context: Context,
    pub log: W,
    pub recorded: Arc<Recorded>,
    /// Past this many bytes of output, more is read and thrown away, and the end says how much.
    pub max_output_bytes: u64,
    pub shutdown: CancellationToken,
}

/// Where a pump begins.
pub enum Resume {
    /// At the start, with the news of it; `durable` hears when that news is safe.
    Started { started: Box<ExecStarted>, durable: oneshot::Sender<()> },
    /// In the middle: so much is recorded, and from there the agent tells. With its end `ended`, its output was open.
    Recorded { recorded: Offsets, read: Offsets, ended: bool },
}

enum Ending {
    /// Its end is recorded, or is somebody else's to tell.
    Over,
    /// The connection to the agent broke.
    Vanished,
    /// What was published is lost; the agent has it.
    Lost,
}

struct Pump<W> {
    exec: Exec<W>,
    outbox: Outbox<W>,
    following: Following,
    /// What has been gathered for the log, which is less than what was read once the limit is reached.
    gathered: Offsets,
    /// What has been read of the agent.
    read: Offsets,
    /// What was read and is not told yet, where something is masked.
    masking: Masking,
    /// The news of the start, until it is recorded.
    started: Option<Event>,
    durable: Option<oneshot::Sender<()>>,
    /// What the agent was told to forget.
    released: Offsets,
    /// The end has been gathered, or is recorded. Where it left the output open there is more to read.
    ended: bool,
    /// All has been gathered; there is nothing more to read.
    over: bool,
    /// The agent was asked to close the output: no more of it is recorded.
    closing: bool,
    /// When more was last recorded, and how often it was asked in vain since.
    moved: (Instant, u32),
}

impl<W: Way> Exec<W> {
    /// Pumps until the end of the exec is recorded.
    pub async fn pump(self, connection: ExecConnection, resume: Resume) {
        let (id, hosted) = (self.id, Arc::clone(&self.hosted));
        let (gathered, read, ended) = match &resume {
            Resume::Started { .. } => ([0, 0], [0, 0], false),
            Resume::Recorded { recorded, read, ended } => (*recorded, *read, *ended),
        };
        let (started, durable) = match resume {
            Resume::Started { started, durable } => (Some(started), Some(durable)),
            Resume::Recorded { .. } => (None, None),
        };
        let known = ExecProgress { stdout_bytes: gathered[0], stderr_bytes: gathered[1], ended, over: false };
        let known = started.is_none().then_some(known);
        let following = self.recorded.follow((&hosted.tenant, id), known);
        let started = started.map(|started| self.context.event_once("started", *started));
        let mut pump = Pump {
            outbox: Outbox::new(&self.log),
            following,
            masking: Masking::new(&self.context.redaction, read, gathered),
            gathered,
            read,
            started,
            durable,
            released: read,
            ended,
            over: false,
            closing: false,
            moved: (Instant::now(), 0),
            exec: self,
        };
        if let Some(event) = pump.started.clone() {
            pump.add(event, false);
        }
        if !pump.exec.context.redaction.is_empty() {
            hosted.maskings.insert(id, pump.exec.context.redaction.clone());
        }
        pump.run(connection).await;
        hosted.forget(id);
    }
}

impl<W: Way> Pump<W> {
    async fn run(&mut self, connection: ExecConnection) {
        let mut connection = Some(connection);
        loop {
            let ending = match connection.take() {
                Some(connection) => {
                    let (mut reader, writer) = connection.split();
                    self.follow(Some((&mut reader, &writer))).await
                }
                // The agent is gone and its end has been told: only the record is waited for.
                None => self.follow(None).await,
            };
            match ending {
                Ending::Over => return,
                Ending::Vanished => {}
                Ending::Lost => self.begin_again(),
            }
            connection = self.attach_again().await;
            if self.exec.shutdown.is_cancelled() {
                return;
            }
            if connection.is_none() {
                self.unknown();
            }
        }
    }

    /// Reads, publishes and releases until something ends it.
    async fn follow(&mut self, mut agent: Option<(&mut ExecReader, &ExecWriter)>) -> Ending {
        let company = tokio::time::sleep(COMPANY);
        tokio::pin!(company);
        let mut waits = self.durable.is_some();
        loop {
            if !waits {
                self.send_if_due().await;
            }
            let writer = agent.as_ref().map(|(_, writer)| *writer);
            let progress = self.following.progress();
            if progress.is_some_and(|progress| self.outbox.note(progress)) {
                self.is_durable();
            }
            self.release(progress, writer).await;
            if progress.is_some_and(|progress| progress.over) {
                return Ending::Over;
            }
            if self.ended && !self.over && progress.is_some_and(|progress| progress.ended) {
                self.exec.hosted.open.insert(self.exec.id);
            }
            let may_read = !self.over && self.outbox.has_room() && self.following.window_is_open();
            let due = self.masking.due();
            let reading = async {
                match agent.as_mut() {
                    Some((reader, _)) if may_read => reader.next().await,
                    _ => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.exec.shutdown.cancelled() => {
                    self.settle().await;
                    return Ending::Over;
                }
                () = &mut company, if waits => waits = false,
                () = tokio::time::sleep_until(due.unwrap_or(self.moved.0)), if due.is_some() => self.tell_due(),
                () = self.outbox.durable(), if self.outbox.is_under_way() => self.is_durable(),
                () = self.following.changed() => self.moved = (Instant::now(), 0),
                () = tokio::time::sleep_until(self.moved.0 + SILENCE), if self.awaits_record() => {
                    if self.ask().await {
                        return Ending::Lost;
                    }
                }
                event = reading => match event {
                    Ok(Some(ExecEvent::Output { stream, bytes, .. })) => self.output(stream, bytes),
                    Ok(Some(ExecEvent::Exited(outcome))) => {
                        self.ended(&outcome, false);
                        waits = false;
                    }
                    Ok(Some(ExecEvent::ExitedOpen(outcome))) => {
                        self.ended(&outcome, true);
                        self.close_at_limit();
                        waits = false;
                    }
                    Ok(Some(ExecEvent::OutputClosed(closed))) => self.output_closed(closed),
                    Ok(Some(ExecEvent::Superseded)) => {
                        tracing::info!(exec.id = %self.exec.id, "another executor took this exec over");
                        return Ending::Over;
                    }
                    Ok(None) => return Ending::Vanished,
                    Err(error) => {
                        tracing::debug!(error = %error, exec.id = %self.exec.id, "lost the agent");
                        return Ending::Vanished;
                    }
                }
            }
        }
    }

    async fn send_if_due(&mut self) {
        let [stdout_bytes, stderr_bytes] = self.gathered;
        // How the record stands when all that was gathered is in it.
        let recorded = ExecProgress { stdout_bytes, stderr_bytes, ended: self.ended, over: self.over };
        // The end of an exec must not overtake what is said of its sandbox, which ends it: that goes through the stream.
        let hosted = &self.exec.hosted;
        let may_offer = !hosted.is_kept_in_order(self.exec.id) && !hosted.is_closing();
        self.outbox.send_if_due(recorded, may_offer).await;
    }

    /// The news of the start is safe.
    fn is_durable(&mut self) {
        if let Some(started) = self.durable.take() {
            let _ = started.send(());
        }
    }

    /// Whether something was published that is not recorded yet.
    fn awaits_record(&self) -> bool {
        let progress = self.following.progress().unwrap_or_default();
        self.over || self.started.is_some() || self.unrecorded() > 0 || (self.ended && !progress.ended)
    }

    fn unrecorded(&self) -> u64 {
        let progress = self.exec_progress();
        (self.gathered[0] + self.gathered[1]).saturating_sub(progress[0] + progress[1])
    }

    fn exec_progress(&self) -> Offsets {
        let known = self.following.progress().unwrap_or_default();
        [known.stdout_bytes, known.stderr_bytes]
    }

    /// Asks the record how far it is. `true` when it stands still though everything was published: what was published
    /// is lost, as after the loss of the transport's disk.
    async fn ask(&mut self) -> bool {
        self.moved.0 = Instant::now();
        let before = self.following.progress();
        let Ok(record) = self.exec.log.exec_record(self.exec.id).await else {
            return false;
        };
        let known = record.as_ref().and_then(ExecProgress::of);
        if let Some(progress) = known {
            self.following.note(progress);
        }
        let still = known == before;
        if !still || self.outbox.is_under_way() {
            self.moved.1 = 0;
            return false;
        }
        self.moved.1 += 1;
        self.moved.1 >= STALLS
    }

    /// Starts over from what is recorded.
    fn begin_again(&mut self) {
        tracing::warn!(exec.id = %self.exec.id, "what was published is lost: publishing it again");
        self.moved = (Instant::now(), 0);
        self.outbox = Outbox::new(&self.exec.log);
        self.gathered = self.exec_progress();
        self.read = self.gathered.map(|offset| offset.saturating_sub(self.masking.lookbehind()));
        self.masking = Masking::new(&self.exec.context.redaction, self.read, self.gathered);
        self.ended = self.following.progress().is_some_and(|progress| progress.ended);
        self.over = false;
        self.following.count(0);
        if let Some(event) = self.started.clone() {
            self.add(event, false);
        }
    }

    /// Publishes what was read, as far as that goes quickly; the agent has the rest.
    async fn settle(&mut self) {
        let publish = async {
            self.send_if_due().await;
            while self.outbox.is_under_way() {
                self.outbox.durable().await;
                self.send_if_due().await;
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), publish).await;
    }

    /// Lets the agent forget what is recorded, and what is past the limit and thrown away.
    async fn release(&mut self, progress: Option<ExecProgress>, writer: Option<&ExecWriter>) {
        let recorded = self.exec_progress();
        let over = progress.is_some_and(|progress| progress.over);
        if progress.is_some() {
            self.started = None;
        }
        let unrecorded = self.unrecorded();
        self.following.count(unrecorded);
        let Some(writer) = writer else { return };
        // What is past the limit is forgotten only when all that is before it is recorded, of both streams: if that is lost, the limit
        // has not been reached, and what comes next belongs in the record.
        let all = recorded[0] >= self.gathered[0] && recorded[1] >= self.gathered[1];
        for stream in Stream::BOTH {
            let index = stream.index();
            let told = self.read[index] - self.masking.held(stream);
            let safe = if all { told } else { recorded[index] };
            // Who takes over must see so much again.
            let offset = if over { self.read[index] } else { safe.saturating_sub(self.masking.lookbehind()) };
            if offset > self.released[index] {
                self.released[index] = offset;
                tokio::select! {
                    // An agent that is gone has nothing to release; the reader will notice.
                    _ = writer.ack(stream, offset) => {}
                    // One that does not read is not waited for.
                    () = self.exec.shutdown.cancelled() => {}
                    () = self.exec.hosted.gone() => {}
                }
            }
        }
    }

    fn add(&mut self, event: Event, last: bool) {
        if let Err(error) = self.outbox.add(event, last) {
            tracing::error!(error = %error, exec.id = %self.exec.id, "an event cannot be encoded");
        }
    }

    fn output(&mut self, stream: Stream, bytes: Bytes) {
        self.read[stream.index()] += bytes.len() as u64;
        let told = self.masking.push(stream, bytes, Instant::now());
        self.gather(stream, told);
        self.close_at_limit();
    }

    /// Nobody waits for an exec that has ended: what it left running is not read for ever to be thrown away.
    fn close_at_limit(&mut self) {
        let is_full = self.gathered[0] + self.gathered[1] >= self.exec.max_output_bytes;
        if !self.ended || self.over || !is_full || std::mem::replace(&mut self.closing, true) {
            return;
        }
        let (hosted, id) = (Arc::clone(&self.exec.hosted), self.exec.id);
        tokio::spawn(async move {
            let asked = hosted.agent.close_output(id.as_bytes().to_owned().into(), OutputEnd::Limit).await;
            if let Err(error) = asked {
                // What still comes is thrown away here, as before the end of an exec.
                tracing::debug!(error = %error, exec.id = %id, "output past the limit was not closed");
            }
        });
    }

    /// Tells what was held back for long enough.
    fn tell_due(&mut self) {
        let now = Instant::now();
        for stream in Stream::BOTH {
            let due = self.masking.take_due(stream, now);
            self.gather(stream, due);
        }
    }

    /// Tells what was held back: there is no more.
    fn tell_held(&mut self) {
        for stream in Stream::BOTH {
            let held = self.masking.flush(stream);
            self.gather(stream, held);
        }
    }

    fn gather(&mut self, stream: Stream, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let index = stream.index();
        let room = self.exec.max_output_bytes.saturating_sub(self.gathered[0] + self.gathered[1]);
        let mut keep = bytes.slice(..bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        if self.unrecorded() == 0 {
            // Silence counts from here.
            self.moved = (Instant::now(), 0);
        }
        while !keep.is_empty() {
            let chunk = keep.split_to(keep.len().min(FULL_PIECE));
            let offset = self.gathered[index];
            self.gathered[index] += chunk.len() as u64;
            let output = ExecOutput {
                exec: self.exec.id,
                stream: match stream {
                    Stream::Stdout => OutputStream::Stdout,
                    Stream::Stderr => OutputStream::Stderr,
                },
                offset,
                marks: Vec::new(),
                bytes: chunk,
                missing: None,
            };
            let event = self.exec.context.event(output);
            self.add(event, false);
        }
    }

    fn ended(&mut self, outcome: &ExecOutcome, output_open: bool) {
        if std::mem::replace(&mut self.ended, true) {
            // Told by whoever attached before: only its output was still open.
            return;
        }
        self.tell_held();
        let exec = self.exec.id;
        let recorded = self.gathered[0] + self.gathered[1];
        let ended = ExecEnded {
            stdout_bytes: self.gathered[0],
            stderr_bytes: self.gathered[1],
            truncated_bytes: outcome.stdout_len.saturating_add(outcome.stderr_len).saturating_sub(recorded),
            duration_us: u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX),
            oom: matches!(outcome.end, protocol::ExecEnd::OutOfMemory { .. }),
            output_open,
        };
        let data: EventData = match outcome.end {
            protocol::ExecEnd::Exited { code } => {
                ExecExited { exec, code, signal: None, asked: None, ended }.into()
            }
            protocol::ExecEnd::Signaled { signal } => ExecExited {
                exec,
                code: 128_i32.saturating_add(signal),
                signal: Some(signal),
                asked: None,
                ended,
            }
            .into(),
            protocol::ExecEnd::OutOfMemory { left } => {
                let signal = if let Left::Signal(signal) = left { Some(signal) } else { None };
                ExecExited { exec, code: left.exit_code(), signal, asked: None, ended }.into()
            }
            protocol::ExecEnd::TimedOut { left: Left::Code(code) } => {
                ExecTimedOut { exec, code: Some(code), signal: None, ended }.into()
            }
            protocol::ExecEnd::TimedOut { left: Left::Signal(signal) } => {
                ExecTimedOut { exec, code: None, signal: Some(signal), ended }.into()
            }
            protocol::ExecEnd::Killed { cause, left: Left::Signal(signal) } => {
                ExecKilled { exec, signal, asked: Some(self.asked(cause)), ended }.into()
            }
            protocol::ExecEnd::Killed { cause, left: Left::Code(code) } => {
                ExecExited { exec, code, signal: None, asked: Some(self.asked(cause)), ended }.into()
            }
        };
        self.tell_end(data, !output_open);
    }

    fn output_closed(&mut self, closed: ClosedOutput) {
        let reason = match closed.reason {
            OutputEnd::Eof if self.exec.hosted.is_closing() => OutputCloseReason::Sandbox,
            OutputEnd::Eof => OutputCloseReason::Eof,
            OutputEnd::Request => OutputCloseReason::Request,
            OutputEnd::TooMany => OutputCloseReason::TooMany,
            OutputEnd::Limit => OutputCloseReason::Limit,
            OutputEnd::Sandbox => OutputCloseReason::Sandbox,
        };
        self.tell_closed(reason, closed.stdout_len.saturating_add(closed.stderr_len));
    }

    /// Says that nothing more comes after an end that left the output open, of which so many bytes were written.
    fn tell_closed(&mut self, reason: OutputCloseReason, written: u64) {
        self.tell_held();
        let closed = ExecOutputClosed {
            exec: self.exec.id,
            reason,
            stdout_bytes: self.gathered[0],
            stderr_bytes: self.gathered[1],
            truncated_bytes: written.saturating_sub(self.gathered[0] + self.gathered[1]),
        };
        self.tell_end(closed.into(), true);
    }

    /// Who or what asked it to end.
    fn asked(&self, cause: KillCause) -> Asked {
        let (cause, signal) = match cause {
            KillCause::Request => (EndCause::Request, SIGTERM),
            KillCause::Shutdown => (EndCause::Sandbox, SIGKILL),
        };
        Asked { cause, by: self.exec.hosted.asked_by(self.exec.id, cause), signal }
    }

    /// Says that nobody knows how it ended: its agent is gone, with whatever it had not said.
    fn unknown(&mut self) {
        if !self.over && self.ended {
            self.tell_closed(OutputCloseReason::Sandbox, self.read[0] + self.read[1]);
        } else if !self.over {
            self.tell_held();
            let message = "the sandbox went away while the command ran".to_owned();
            self.ended = true;
            self.tell_end(ExecOutcomeUnknown { exec: self.exec.id, message }.into(), true);
        }
    }

    fn tell_end(&mut self, data: EventData, over: bool) {
        let event = self.exec.context.event(data);
        self.moved = (Instant::now(), 0);
        self.over = over;
        self.add(event, true);
    }

    /// Finds the agent again after its connection broke; `None` when it is gone for good.
    async fn attach_again(&mut self) -> Option<ExecConnection> {
        let give_up_at = Instant::now() + RETRY_FOR;
        // By hand: what is refused may move where the next try goes on from.
        let mut pause = RETRY_PAUSE;
        while Instant::now() < give_up_at {
            if self.exec.shutdown.is_cancelled() {
                return None;
            }
            let attach = Attach {
                exec_id: self.exec.id.as_bytes().to_owned().into(),
                stdout_offset: self.read[0],
                stderr_offset: self.read[1],
            };
            let agent = self.exec.hosted.agent.within(RETRY_ASK);
            let attached = tokio::select! {
                attached = agent.attach_exec(attach) => attached,
                () = self.exec.shutdown.cancelled() => return None,
                () = self.exec.hosted.gone() => break,
            };
            match attached {
                Ok(connection) => return Some(connection),
                Err(CallError::Refused(AttachRefusal::UnknownExec(_))) => break,
                Err(CallError::Refused(AttachRefusal::Released { stream, retained_from })) => {
                    // Past the output limit the agent was let forget more than is recorded.
                    self.read[stream.index()] = retained_from;
                    self.masking = Masking::new(&self.exec.context.redaction, self.read, self.gathered);
                }
                Err(error) if self.exec.hosted.is_closing() => {
                    tracing::debug!(error = %error, exec.id = %self.exec.id, "its sandbox is being destroyed");
                    break;
                }
                Err(error) => {
                    tracing::debug!(error = %error, exec.id = %self.exec.id, "cannot attach again");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_LONGEST);
                }
            }
        }
        None
    }
}
