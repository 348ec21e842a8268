//! A record and a recorder's voice in memory, for the tests of the feed and of what is made of it. Their clock is tokio's.
//!
//! This is a mock. What is simulated, at random by the seed: announcements that are lost, cut in pieces, said again and late; a
//! store that is away for a while, that answers late, and that is ahead of what was announced. What is committed is dense and
//! stays; what the store says of states is folded by the real rules. The real ones are in the tests of the store and the transport.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use events::{
    Actor, ChainPoint, DestroyReason, Event, EventData, EventId, ExecEnded, ExecEvent, ExecExited, ExecId,
    ExecOutput, ExecResized, ExecStarted, Frame, Key, Kind, OutputStream, Position, Registry, RetentionClass,
    SandboxDestroyed, SandboxErased, SandboxId, SandboxRequested, Slot, TenantId, TerminalSize,
};
use fastrand::Rng;
use record::{
    AppendBatch, AppendError, ChainedFrame, DataKey, DataKeys, EventQuery, EventStore, Evidence, Floor,
    FoundEvent, Head, OutputBytes, OutputChunk, Protection, Record, RowQuery, StoreError, StoredRow, Upkeep,
    WholeRow,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use transport::{Announcement, RecorderLag};

use crate::feed::{Topic, Voice};

/// How often the recorder says how far the log goes.
const HEAD_EVERY: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub struct World(Arc<Inside>);

struct Inside {
    state: Mutex<State>,
    said: Notify,
}

struct State {
    rng: Rng,
    faults_until: Instant,
    log: Vec<(Event, Frame)>,
    said: VecDeque<Announcement>,
    silent: bool,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

/// So many seconds after the beginning of the test.
pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_750_000_000 + seconds, 0).unwrap()
}

pub fn event(sandbox: SandboxId, data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: Some(sandbox),
        time: at(0),
        actor: Actor::Reaper,
        cause: None,
        request_id: None,
        traceparent: None,
        data: data.into(),
    }
}

impl World {
    pub fn new(seed: u64, faults: Duration) -> Self {
        let state = State {
            rng: Rng::with_seed(seed),
            faults_until: Instant::now() + faults,
            log: Vec::new(),
            said: VecDeque::new(),
            silent: false,
        };
        let world = Self(Arc::new(Inside { state: Mutex::new(state), said: Notify::new() }));
        let heads = world.clone();
        tokio::spawn(async move {
            loop {
                sleep(HEAD_EVERY).await;
                let mut state = heads.0.state.lock().unwrap();
                if state.silent {
                    return;
                }
                let head = Position(state.log.len() as u64);
                state.said.push_back(Announcement::Head(head, RecorderLag::default()));
                drop(state);
                heads.0.said.notify_one();
            }
        });
        world
    }

    /// Commits a batch and announces it, as far as that gets.
    pub fn record(&self, batch: Vec<Event>) {
        let mut state = self.0.state.lock().unwrap();
        let first = state.log.len();
        for event in batch {
            let mut frame = event.to_frame().unwrap();
            frame.position = Position(state.log.len() as u64 + 1);
            state.log.push((event, frame));
        }
        let faulty = state.faulty();
        // Said again are also some of those before.
        let from =
            if faulty && state.rng.u8(..6) == 0 { first.saturating_sub(state.rng.usize(..8)) } else { first };
        let mut frames: VecDeque<Frame> = state.log[from..].iter().map(|(_, frame)| frame.clone()).collect();
        while !frames.is_empty() {
            let length = 1 + state.rng.usize(..frames.len());
            let piece = frames.drain(..length).collect();
            if !(faulty && state.rng.u8(..4) == 0) {
                state.said.push_back(Announcement::Events(Ok(piece)));
            }
        }
        drop(state);
        self.0.said.notify_one();
    }

    /// One event more that readers of a topic are given.
    pub fn last_words(&self, topic: Topic) -> Option<Event> {
        let sandbox_of = |exec: ExecId| {
            self.events()
                .into_iter()
                .find(|(_, event)| event.data.exec() == Some(exec))
                .and_then(|(_, event)| event.sandbox)
        };
        match topic {
            Topic::All | Topic::Job(_) => None,
            Topic::Sandbox(sandbox) => Some(event(sandbox, SandboxErased {})),
            Topic::Exec(exec) => {
                let size = TerminalSize { rows: 1, cols: 1 };
                Some(event(sandbox_of(exec)?, ExecResized { exec, size }))
            }
        }
    }

    /// The recorder says nothing any more.
    pub fn falls_silent(&self) {
        self.0.state.lock().unwrap().silent = true;
    }

    pub fn events(&self) -> Vec<(Position, Event)> {
        let state = self.0.state.lock().unwrap();
        state.log.iter().map(|(event, frame)| (frame.position, event.clone())).collect()
    }

    pub fn random(&self, below: u64) -> u64 {
        self.0.state.lock().unwrap().rng.u64(..below)
    }

    pub fn is_faulty(&self) -> bool {
        self.0.state.lock().unwrap().faulty()
    }

    /// The store takes its time, and may be away.
    async fn reach(&self) -> Result<(), StoreError> {
        let most = if self.is_faulty() && self.random(6) == 0 { 1_500 } else { 5 };
        sleep(Duration::from_millis(self.random(most))).await;
        if self.is_faulty() && self.random(5) == 0 {
            return Err(StoreError::Unavailable { operation: "read", source: "it is away".into() });
        }
        Ok(())
    }

    /// The states of a kind, as they are now.
    fn states(&self, kind: &str) -> (Position, Vec<(Key, Slot)>) {
        let registry = Registry::default();
        let kind = registry.kinds().iter().find(|known| known.name == kind).unwrap();
        let state = self.0.state.lock().unwrap();
        let mut things = std::collections::BTreeMap::new();
        for (event, _) in &state.log {
            if let Some(key) = kind.changed_by(event) {
                things.entry(key).or_insert_with(|| kind.empty()).apply(event);
            }
        }
        (Position(state.log.len() as u64), things.into_iter().collect())
    }
}

impl State {
    fn faulty(&self) -> bool {
        Instant::now() < self.faults_until
    }
}

/// What is said, to whoever listens. There is one listener.
pub struct Said(pub World);

impl Voice for Said {
    async fn next(&mut self) -> Option<Announcement> {
        let inside = &self.0.0;
        loop {
            let said = inside.state.lock().unwrap().said.pop_front();
            if let Some(said) = said {
                return Some(said);
            }
            inside.said.notified().await;
        }
    }
}

fn row((key, slot): (Key, Slot)) -> StoredRow {
    StoredRow { key, state: slot.write().unwrap() }
}

fn not_asked<T>() -> Result<T, StoreError> {
    Err(StoreError::Refused { operation: "answer", source: "nobody asks for this here".into() })
}

#[async_trait]
impl EventStore for World {
    async fn head(&self) -> Result<Head, StoreError> {
        let position = Position(self.0.state.lock().unwrap().log.len() as u64);
        Ok(Head { position, ..Head::default() })
    }

    async fn append(&self, _: &AppendBatch) -> Result<(), AppendError> {
        Err(AppendError::Conflict)
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<FoundEvent>, StoreError> {
        self.reach().await?;
        let filter = &query.filter;
        let matches = |event: &Event| {
            filter.sandbox.is_none_or(|sandbox| event.sandbox == Some(sandbox))
                && filter.exec.is_none_or(|exec| event.data.exec() == Some(exec))
                && filter.tenant.as_ref().is_none_or(|tenant| event.tenant == *tenant)
                && (filter.types.is_empty() || filter.types.iter().any(|name| name == event.data.type_name()))
        };
        let state = self.0.state.lock().unwrap();
        let found = state.log.iter().filter(|(event, frame)| {
            frame.position > query.after
                && query.up_to.is_none_or(|up_to| frame.position <= up_to)
                && matches(event)
        });
        let found = found.take(query.limit as usize).map(|(_, frame)| {
            let mut frame = frame.clone();
            let body_length = (!frame.body.is_empty()).then_some(frame.body.len() as u64);
            if !query.bodies {
                frame.body = bytes::Bytes::new();
            }
            FoundEvent { frame, body_length }
        });
        Ok(found.collect())
    }

    async fn position_at(&self, _: DateTime<Utc>) -> Result<Position, StoreError> {
        not_asked()
    }

    async fn chain_ends(&self, _: Option<&TenantId>) -> Result<(Position, Vec<ChainPoint>), StoreError> {
        not_asked()
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<StoredRow>, StoreError> {
        self.reach().await?;
        let wanted = |key: &Key| query.keys.as_ref().is_none_or(|keys| keys.contains(key));
        let (_, states) = self.states(query.kind);
        Ok(states.into_iter().filter(|(key, _)| wanted(key)).map(row).collect())
    }

    async fn live_rows(&self, kind: &'static str) -> Result<(Position, Vec<StoredRow>), StoreError> {
        self.reach().await?;
        let (head, states) = self.states(kind);
        let live = |slot: &Slot| slot.fields().is_some_and(|fields| !fields.ended);
        Ok((head, states.into_iter().filter(|(_, slot)| live(slot)).map(row).collect()))
    }

    async fn known_ids(&self, _: &[EventId]) -> Result<Vec<EventId>, StoreError> {
        not_asked()
    }

    async fn floors(&self) -> Result<Vec<Floor>, StoreError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl OutputBytes for World {
    async fn start(&self, exec: ExecId, stdout: u64, stderr: u64) -> Result<Option<Position>, StoreError> {
        self.reach().await?;
        let state = self.0.state.lock().unwrap();
        Ok(state.log.iter().find_map(|(event, frame)| {
            let EventData::Exec(ExecEvent::Output(output)) = &event.data else { return None };
            let from = if output.stream == OutputStream::Stdout { stdout } else { stderr };
            (output.exec == exec && output.offset + output.length() > from).then_some(frame.position)
        }))
    }

    async fn read(
        &self,
        exec: ExecId,
        stream: OutputStream,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Vec<OutputChunk>, StoreError> {
        self.reach().await?;
        let state = self.0.state.lock().unwrap();
        let chunk = state.log.iter().find_map(|(event, frame)| {
            let EventData::Exec(ExecEvent::Output(output)) = &event.data else { return None };
            let holds = (output.offset..output.offset + output.length()).contains(&offset);
            (output.exec == exec && output.stream == stream && holds).then(|| {
                let from = (offset - output.offset) as usize;
                let bytes = output.bytes.slice(from..output.bytes.len().min(from + max_bytes));
                OutputChunk { offset, bytes, position: frame.position }
            })
        });
        Ok(chunk.into_iter().collect())
    }
}

/// Parts of a record that nobody asks for anything here.
#[derive(Debug)]
struct Unasked;

#[async_trait]
impl DataKeys for Unasked {
    async fn of(&self, _: &[SandboxId]) -> Result<Vec<DataKey>, StoreError> {
        not_asked()
    }

    async fn any(&self) -> Result<bool, StoreError> {
        not_asked()
    }

    async fn protection(&self, _: SandboxId) -> Result<Protection, StoreError> {
        not_asked()
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        not_asked()
    }
}

#[async_trait]
impl Evidence for Unasked {
    async fn read_chain(
        &self,
        _: Option<&TenantId>,
        _: Position,
        _: Position,
        _: u32,
    ) -> Result<Vec<ChainedFrame>, StoreError> {
        not_asked()
    }

    async fn whole_row(&self, _: &'static str, _: &Key) -> Result<Option<WholeRow>, StoreError> {
        not_asked()
    }

    async fn next_key(&self, _: &Kind, _: &Key) -> Result<Option<Key>, StoreError> {
        not_asked()
    }
}

#[async_trait]
impl Upkeep for Unasked {
    async fn first_live(&self) -> Result<Option<Position>, StoreError> {
        not_asked()
    }

    async fn drop_some(&self, _: RetentionClass) -> Result<u64, StoreError> {
        not_asked()
    }
}

impl World {
    /// The record that it stands for.
    pub fn as_record(&self) -> Record {
        let world = Arc::new(self.clone());
        let unasked = Arc::new(Unasked);
        Record {
            store: world.clone(),
            output: world,
            keys: unasked.clone(),
            evidence: unasked.clone(),
            upkeep: unasked,
        }
    }
}

/// Makes up what happens: sandboxes come and go, and execs in them write and end.
pub struct Author {
    rng: Rng,
    sandboxes: Vec<SandboxId>,
    execs: Vec<Running>,
    /// All that there ever were.
    pub all_execs: Vec<ExecId>,
}

struct Running {
    id: ExecId,
    sandbox: SandboxId,
    written: [u64; 2],
}

impl Running {
    fn exits(self) -> Event {
        let Self { id: exec, sandbox, written: [stdout_bytes, stderr_bytes] } = self;
        let ended = ExecEnded { stdout_bytes, stderr_bytes, ..ExecEnded::default() };
        event(sandbox, ExecExited { exec, code: 0, signal: None, asked: None, ended })
    }
}

/// The byte at a place of a stream.
pub fn byte(stream: OutputStream, at: u64) -> u8 {
    (at.wrapping_mul(37) % 127) as u8 | if stream == OutputStream::Stdout { 0 } else { 0x80 }
}

impl Author {
    pub fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), sandboxes: Vec::new(), execs: Vec::new(), all_execs: Vec::new() }
    }

    pub fn batch(&mut self) -> Vec<Event> {
        let most = if self.rng.u8(..10) == 0 { 300 } else { 12 };
        let count = 1 + self.rng.usize(..most);
        (0..count).map(|_| self.next()).collect()
    }

    /// All that still runs ends.
    pub fn ends(&mut self) -> Vec<Event> {
        let all = std::mem::take(&mut self.execs);
        all.into_iter().map(Running::exits).collect()
    }

    fn next(&mut self) -> Event {
        let kind = self.rng.u8(..20);
        if self.sandboxes.is_empty() || (kind == 0 && self.sandboxes.len() < 6) {
            let spec = serde_json::from_value(serde_json::json!({
                "provider": "docker", "image": "a", "memory_mib": 1, "cpu_millis": 1, "pids_limit": 1
            }));
            let sandbox = SandboxId::new();
            self.sandboxes.push(sandbox);
            let (spec, end) = (spec.unwrap(), at(600));
            return event(
                sandbox,
                SandboxRequested { spec, expires_at: end, lifetime_ends_at: end, term: None },
            );
        }
        let at_random = self.rng.usize(..self.sandboxes.len());
        let sandbox = self.sandboxes[at_random];
        if kind == 1 {
            self.sandboxes.swap_remove(at_random);
            return event(sandbox, SandboxDestroyed { reason: DestroyReason::User });
        }
        if self.execs.is_empty() || (kind == 2 && self.execs.len() < 5) {
            let id = ExecId::new();
            let spec = serde_json::from_value(serde_json::json!({ "argv": ["true"] })).unwrap();
            self.execs.push(Running { id, sandbox, written: [0, 0] });
            self.all_execs.push(id);
            return event(sandbox, ExecStarted { exec: id, spec, env_names: Vec::new(), pid: 7 });
        }
        let at_random = self.rng.usize(..self.execs.len());
        if kind == 3 {
            return self.execs.swap_remove(at_random).exits();
        }
        let exec = &mut self.execs[at_random];
        let stream = if self.rng.bool() { OutputStream::Stdout } else { OutputStream::Stderr };
        let written = &mut exec.written[usize::from(stream == OutputStream::Stderr)];
        let offset = *written;
        *written += 1 + self.rng.u64(..20);
        let bytes: Vec<u8> = (offset..*written).map(|at| byte(stream, at)).collect();
        event(exec.sandbox, ExecOutput::new(exec.id, stream, offset, bytes))
    }
}
