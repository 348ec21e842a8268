//! A world in memory for the tests of the pump and the outbox: an agent with one exec, the way to the record, and the record. Its clock
//! is tokio's, which goes on when nobody has anything to do.
//!
//! This is a mock. What is simulated, each at random by the seed and as long as faults are on: messages that are lost, stored
//! though an error is told, acknowledged late; a stream that loses what it acknowledged; offers that are lost and that come late and
//! out of order; deliveries that come again; news of the record that are lost and overtake each other; questions that are not
//! answered; connections to the agent that break or cannot be made. The agent speaks its real protocol, what is recorded is judged
//! and folded by the real rules, and the real stream, recorder and agent are in the tests of the executor as a whole.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agent::client::{Connect, ConnectFuture, Connection};
use agent::protocol::{
    Attach, AttachRefusal, ClosedOutput, ExecEnd, ExecOutcome, FrameError, FrameReader, FrameWriter, Hello,
    Input, MAX_CHUNK, OutputEnd, Refusal, Reply, Request, Started, Stream,
};
use bytes::Bytes;
use events::{Aggregate, Event, EventData, ExecEvent, ExecId, ExecState, OutputStream, decode_batch};
use fastrand::Rng;
use futures::FutureExt;
use tokio::io::DuplexStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use transport::{ExecProgress, PublishError, QueryError};

use super::pump::Offsets;
use super::way::{Pending, Way};
use crate::recorded::Recorded;

/// How much the agent keeps of what is not recorded. Then the process is blocked.
const KEPT: u64 = 6 << 20;

#[derive(Clone)]
pub struct World(Arc<Inside>);

struct Inside {
    state: Mutex<State>,
    changed: Notify,
}

/// What the exec does.
#[derive(Clone, Debug)]
pub struct Script {
    pub output: [Vec<u8>; 2],
    /// How much of it comes after its end.
    pub after_end: Offsets,
    /// How much of its output may be recorded.
    pub limit: u64,
    /// How much comes at once, and at most how long after what came before.
    pub piece: usize,
    pub pause: Duration,
    /// Whether it was asked for, and the record knows that, before it begins.
    pub requested: Option<Event>,
    /// Whether its agent goes for good while it runs.
    pub vanishes_after: Option<Duration>,
}

pub struct State {
    pub rng: Rng,
    pub script: Script,
    pub faults_until: Instant,
    // The agent.
    produced: Offsets,
    pub released: Offsets,
    attached: u64,
    exited: bool,
    closed: Option<OutputEnd>,
    gone: bool,
    // The way.
    stored: Vec<Bytes>,
    delivered: usize,
    refusing: bool,
    /// Whether the news of the start has ever been stored.
    pub start_stored: bool,
    // The record.
    pub record: Option<ExecState>,
    pub bytes: [Vec<u8>; 2],
    pub ends: Vec<EventData>,
    listener: Option<Arc<Recorded>>,
    /// What must not be.
    pub wrong: Vec<String>,
}

impl World {
    pub fn new(seed: u64, script: Script, faults: Duration) -> Self {
        let state = State {
            rng: Rng::with_seed(seed),
            faults_until: Instant::now() + faults,
            produced: [0, 0],
            released: [0, 0],
            attached: 0,
            exited: false,
            closed: None,
            gone: false,
            stored: Vec::new(),
            delivered: 0,
            refusing: false,
            start_stored: false,
            record: None,
            bytes: [Vec::new(), Vec::new()],
            ends: Vec::new(),
            listener: None,
            wrong: Vec::new(),
            script,
        };
        let world = Self(Arc::new(Inside { state: Mutex::new(state), changed: Notify::new() }));
        tokio::spawn(world.clone().run_process());
        tokio::spawn(world.clone().run_recorder());
        tokio::spawn(world.clone().run_trouble());
        world
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// From here on this executor hears how far the exec is recorded.
    pub fn listen(&self, recorded: &Arc<Recorded>) {
        self.state().listener = Some(Arc::clone(recorded));
    }

    fn changed(&self) {
        self.0.changed.notify_waiters();
    }

    /// Waits until something is so.
    pub async fn until(&self, is_so: impl Fn(&State) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_so(&self.state()) {
                return;
            }
            changed.await;
        }
    }

    async fn pause(&self, most: Duration) {
        let part = self.state().rng.f64();
        sleep(most.mul_f64(part)).await;
    }

    /// Writes, exits, and leaves something behind that writes on.
    async fn run_process(self) {
        let pause = self.state().script.pause;
        loop {
            self.pause(pause).await;
            let mut state = self.state();
            let total = [0, 1].map(|index| state.script.output[index].len() as u64);
            let at_end = [0, 1].map(|index| total[index] - state.script.after_end[index]);
            let bound = if state.exited { total } else { at_end };
            let index = state.rng.usize(..2);
            let index = if state.produced[index] < bound[index] { index } else { 1 - index };
            let kept = state.produced[index] - state.released[index];
            let piece = state.script.piece;
            let next = (1 + state.rng.usize(..piece) as u64).min(bound[index] - state.produced[index]);
            if next > 0 && kept + next <= KEPT {
                state.produced[index] += next;
            } else if next == 0 && !state.exited {
                state.exited = true;
                if state.script.after_end == [0, 0] {
                    drop(state);
                    self.changed();
                    return;
                }
            } else if next == 0 {
                state.closed.get_or_insert(OutputEnd::Eof);
                drop(state);
                self.changed();
                return;
            }
            let closed = state.closed.is_some();
            drop(state);
            self.changed();
            if closed {
                return;
            }
        }
    }

    /// Delivers what is stored, in order, and now and then what was delivered before.
    async fn run_recorder(self) {
        loop {
            self.pause(Duration::from_millis(20)).await;
            let (batch, dies) = {
                let mut state = self.state();
                let faulty = state.faulty();
                if faulty && state.delivered > 0 && state.rng.u8(..20) == 0 {
                    let back = 1 + state.rng.usize(..3);
                    state.delivered = state.delivered.saturating_sub(back);
                }
                let batch = state.stored.get(state.delivered).cloned();
                state.delivered += usize::from(batch.is_some());
                (batch, faulty && state.rng.u8(..60) == 0)
            };
            match batch {
                Some(batch) => self.hear(batch),
                None => {
                    let _ = timeout(Duration::from_millis(200), self.0.changed.notified()).await;
                }
            }
            if dies {
                self.pause(Duration::from_secs(8)).await;
            }
        }
    }

    /// What befalls all at once.
    async fn run_trouble(self) {
        let vanishes_after = self.state().script.vanishes_after;
        let began = Instant::now();
        loop {
            self.pause(Duration::from_secs(4)).await;
            let mut state = self.state();
            if vanishes_after.is_some_and(|after| began.elapsed() >= after) {
                state.gone = true;
            }
            let faulty = state.faulty();
            state.refusing = faulty && !state.refusing && state.rng.u8(..4) == 0;
            if faulty && state.rng.u8(..6) == 0 {
                // The stream's disk is lost, with what was acknowledged.
                let delivered = state.delivered.min(state.stored.len());
                state.stored.truncate(delivered);
            }
            drop(state);
            self.changed();
        }
    }

    /// The recorder hears a batch: what belongs in the record is recorded, and it says how far that is.
    fn hear(&self, batch: Bytes) {
        let mut state = self.state();
        for frame in decode_batch(batch, false).unwrap() {
            state.judge(frame.decode().unwrap());
        }
        let Some(record) = state.record.clone() else { return };
        let (listener, lost) = (state.listener.clone(), state.faulty() && state.rng.u8(..5) == 0);
        drop(state);
        self.changed();
        // As the recorder says it.
        if let (Some(listener), Some(progress)) = (listener, ExecProgress::of(&record))
            && !lost
        {
            let world = self.clone();
            tokio::spawn(async move {
                world.pause(Duration::from_millis(30)).await;
                listener.note(record.id, progress);
            });
        }
    }

    /// The record knows that the exec was asked for.
    pub fn record_request(&self) {
        let requested = self.state().script.requested.clone().unwrap();
        let mut batch = bytes::BytesMut::new();
        events::encode_frame(&requested.to_frame().unwrap(), &mut batch);
        self.hear(batch.freeze());
    }
}

impl State {
    pub fn faulty(&self) -> bool {
        Instant::now() < self.faults_until
    }

    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    /// How much is recorded at most.
    pub fn recorded_in_all(&self) -> u64 {
        self.bytes.iter().map(|bytes| bytes.len() as u64).sum()
    }

    fn judge(&mut self, mut event: Event) {
        let Ok(skip) = ExecState::judge(self.record.as_ref(), &event) else { return };
        if let EventData::Exec(ExecEvent::Output(output)) = &mut event.data {
            output.offset += skip as u64;
            output.bytes = output.bytes.slice(skip..);
            let bytes = &mut self.bytes[usize::from(output.stream == OutputStream::Stderr)];
            bytes.extend_from_slice(&output.bytes);
        }
        self.record = ExecState::apply(self.record.take(), &event);
        let closes = matches!(event.data, EventData::Exec(ExecEvent::OutputClosed(_)));
        if event.data.ends_exec() || closes {
            self.ends.push(event.data);
        }
    }

    fn attach(&mut self, attach: &Attach) -> Result<u64, AttachRefusal> {
        for stream in Stream::BOTH {
            let offset = [attach.stdout_offset, attach.stderr_offset][stream.index()];
            let retained_from = self.released[stream.index()];
            if offset < retained_from {
                return Err(AttachRefusal::Released { stream, retained_from });
            }
            let produced = self.produced[stream.index()];
            if offset > produced {
                return Err(AttachRefusal::BeyondEnd { stream, produced });
            }
        }
        self.attached += 1;
        Ok(self.attached)
    }

    fn outcome(&self) -> ExecOutcome {
        let [stdout_len, stderr_len] =
            [0, 1].map(|index| self.script.output[index].len() as u64 - self.script.after_end[index]);
        ExecOutcome {
            end: ExecEnd::Exited { code: 3 },
            stdout_len,
            stderr_len,
            duration: Duration::from_secs(1),
            cpu_time: Duration::ZERO,
            max_rss_bytes: 0,
        }
    }

    /// Bytes are safe, says whoever is attached.
    fn release(&mut self, stream: Stream, offset: u64, sent: u64) {
        let recorded = self.bytes[stream.index()].len() as u64;
        let is_full = self.recorded_in_all() >= self.script.limit;
        let over = self.record.as_ref().is_some_and(ExecState::is_over);
        if offset > sent || (offset > recorded && !is_full && !over) {
            self.wrong.push(format!(
                "{stream} is forgotten up to {offset}, recorded up to {recorded}, sent up to {sent}"
            ));
        }
        let released = &mut self.released[stream.index()];
        *released = (*released).max(offset);
    }
}

impl Way for World {
    async fn begin(&self, first: &Event, batch: Bytes) -> Pending {
        let mut state = self.state();
        let faulty = state.faulty();
        let (stored, told) = match state.rng.u8(..if faulty { 10 } else { 1 }) {
            8 => (true, Err(PublishError::Full)),
            9 => (false, Err(PublishError::Full)),
            _ if state.refusing => (false, Err(PublishError::Full)),
            _ => (true, Ok(())),
        };
        if stored {
            state.start_stored |= matches!(first.data, EventData::Exec(ExecEvent::Started(_)));
            state.stored.push(batch);
        }
        let most = if faulty && state.rng.u8(..8) == 0 { 4_000 } else { 20 };
        let after = Duration::from_millis(state.rng.u64(..most));
        drop(state);
        self.changed();
        async move {
            sleep(after).await;
            told
        }
        .boxed()
    }

    async fn offer(&self, batch: &Bytes) -> Option<Instant> {
        const MOST: usize = 64 << 10;
        let mut state = self.state();
        if batch.len() > MOST || state.rng.u8(..4) == 0 {
            return None;
        }
        let lost = state.faulty() && state.rng.u8(..4) == 0;
        let late = if state.faulty() { state.rng.u64(..3_000) } else { 10 };
        drop(state);
        if !lost {
            let (world, batch) = (self.clone(), batch.clone());
            tokio::spawn(async move {
                sleep(Duration::from_millis(late)).await;
                world.hear(batch);
            });
        }
        Some(Instant::now() + Duration::from_millis(250))
    }

    fn offered_in_vain(&self) {}

    fn takes_nothing(&self) -> bool {
        self.state().refusing
    }

    async fn until_writable(&self, patience: Duration) {
        let _ = timeout(patience, self.until(|state| !state.refusing)).await;
    }

    async fn mend(&self, _: &PublishError) {
        self.pause(Duration::from_millis(10)).await;
    }

    async fn exec_record(&self, _: ExecId) -> Result<Option<ExecState>, QueryError> {
        self.pause(Duration::from_millis(50)).await;
        let mut state = self.state();
        if state.faulty() && state.rng.u8(..4) == 0 {
            return Err(QueryError::NoAnswer);
        }
        Ok(state.record.clone())
    }
}

impl Connect for World {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async move {
            let mut state = self.state();
            if state.gone || state.faulty() && state.rng.u8(..4) == 0 {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            let breaks_after = (state.faulty() && state.rng.bool())
                .then(|| Instant::now() + Duration::from_millis(state.rng.u64(..6_000)));
            drop(state);
            let (ours, theirs) = tokio::io::duplex(1 << 16);
            let world = self.clone();
            tokio::spawn(async move {
                let served = world.serve(theirs);
                let breaks = async {
                    match breaks_after {
                        Some(at) => sleep_until(at).await,
                        None => world.until(|state| state.gone).await,
                    }
                };
                tokio::select! {
                    _ = served => {}
                    () = breaks => {}
                }
            });
            Ok(Box::new(ours) as Box<dyn Connection>)
        })
    }

    fn place(&self) -> String {
        "simulated".to_owned()
    }
}

type Reader = FrameReader<tokio::io::ReadHalf<DuplexStream>>;
type Writer = FrameWriter<tokio::io::WriteHalf<DuplexStream>>;

impl World {
    /// One connection, as the agent serves it.
    async fn serve(&self, stream: DuplexStream) -> Result<(), FrameError> {
        let (read, write) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let Some(hello) = Hello::receive(&mut reader).await? else { return Ok(()) };
        let version = Hello::ours().versions.common(hello.versions).unwrap();
        Hello::ours().send(version, &mut writer).await?;
        reader.speak(version);
        writer.speak(version);
        writer.flush().await?;
        match reader.receive::<Request>().await? {
            Some(Request::AttachExec(attach)) => self.serve_exec(&attach, reader, writer).await,
            Some(Request::CloseOutput { reason, .. }) => {
                self.state().closed.get_or_insert(reason);
                self.changed();
                writer.send(&Reply::Done).await?;
                writer.flush().await
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn serve_exec(
        &self,
        attach: &Attach,
        mut reader: Reader,
        mut writer: Writer,
    ) -> Result<(), FrameError> {
        let attached = self.state().attach(attach);
        let generation = match attached {
            Ok(generation) => generation,
            Err(refusal) => {
                writer.send(&Reply::Refused(Refusal::Attach(refusal))).await?;
                return writer.flush().await;
            }
        };
        self.changed();
        let started = Started { pid: 7, age: Duration::ZERO, stdin_offset: 0, fresh: true };
        writer.send(&Reply::Started(started)).await?;
        writer.flush().await?;
        let sent = Mutex::new([attach.stdout_offset, attach.stderr_offset]);
        let hears = async {
            while let Some(input) = reader.receive::<Input>().await? {
                let Input::Ack { stream, offset } = input else { continue };
                let sent = sent.lock().unwrap()[stream.index()];
                let mut state = self.state();
                if state.attached == generation {
                    state.release(stream, offset, sent);
                }
                drop(state);
                self.changed();
            }
            Ok(())
        };
        tokio::select! {
            heard = hears => heard,
            told = self.tell(generation, &sent, &mut writer) => told,
        }
    }

    async fn tell(
        &self,
        generation: u64,
        sent: &Mutex<Offsets>,
        writer: &mut Writer,
    ) -> Result<(), FrameError> {
        let mut exit_told = false;
        loop {
            let more = |state: &State| {
                let sent = *sent.lock().unwrap();
                state.attached != generation
                    || sent != state.produced
                    || (state.exited && !exit_told)
                    || (exit_told && state.closed.is_some())
            };
            self.until(more).await;
            let next = self.state().next(generation, &mut sent.lock().unwrap(), &mut exit_told);
            let Some(reply) = next else { return std::future::pending().await };
            let last = matches!(reply, Reply::Superseded | Reply::Exited(_) | Reply::OutputClosed(_));
            writer.send(&reply).await?;
            writer.flush().await?;
            if last {
                return std::future::pending().await;
            }
        }
    }
}

impl State {
    /// What an attached caller is told next.
    fn next(&mut self, generation: u64, sent: &mut Offsets, exit_told: &mut bool) -> Option<Reply> {
        if self.attached != generation {
            return Some(Reply::Superseded);
        }
        let at_end =
            [0, 1].map(|index| self.script.output[index].len() as u64 - self.script.after_end[index]);
        let first = self.rng.usize(..2);
        // Until the end is told, no more than was written before it.
        let bound = [0, 1].map(|index| {
            if *exit_told {
                self.produced[index]
            } else {
                self.produced[index].min(at_end[index].max(sent[index]))
            }
        });
        if let Some(index) = [first, 1 - first].into_iter().find(|index| sent[*index] < bound[*index]) {
            let most = self.script.piece.min(MAX_CHUNK) as u64;
            let length = (1 + self.rng.u64(..most)).min(bound[index] - sent[index]);
            let from = sent[index] as usize;
            sent[index] += length;
            let bytes = Bytes::copy_from_slice(&self.script.output[index][from..sent[index] as usize]);
            return Some(Reply::Output { stream: Stream::BOTH[index], offset: from as u64, bytes });
        }
        if self.exited && !std::mem::replace(exit_told, true) {
            let outcome = self.outcome();
            let open = self.script.after_end != [0, 0];
            return Some(if open { Reply::ExitedOpen(outcome) } else { Reply::Exited(outcome) });
        }
        let reason = self.closed?;
        Some(Reply::OutputClosed(ClosedOutput { reason, stdout_len: sent[0], stderr_len: sent[1] }))
    }
}
