use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, TimeZone, Utc};
use tokio::sync::Notify;

use super::*;
use events::*;
use record::*;
use transport::StreamPlace;

/// A transport in memory: a stream of messages, and what was said.
#[derive(Default)]
struct Wire {
    stream: Mutex<Vec<Bytes>>,
    /// What is only offered, by whoever has it.
    offered: Mutex<VecDeque<Bytes>>,
    arrived: Notify,
    announced: Mutex<BTreeMap<u64, Frame>>,
    head: Mutex<Position>,
    dead: Mutex<Vec<Bytes>>,
    forgotten: Mutex<u64>,
}

impl Wire {
    fn send(&self, payload: Bytes) {
        self.stream.lock().unwrap().push(payload);
        self.arrived.notify_waiters();
    }

    fn send_events(&self, events: &[Event]) {
        let frames: Vec<Frame> = events.iter().map(|event| event.to_frame().unwrap()).collect();
        self.send(encode_batch(&frames));
    }

    fn offer_events(&self, events: &[Event]) {
        let frames: Vec<Frame> = events.iter().map(|event| event.to_frame().unwrap()).collect();
        self.offered.lock().unwrap().push_back(encode_batch(&frames));
        self.arrived.notify_waiters();
    }
}

struct Reader {
    wire: Arc<Wire>,
    next: u64,
    gap: Option<u64>,
}

#[async_trait]
impl Messages for Reader {
    fn incarnation(&self) -> &str {
        "one"
    }

    fn gap(&self) -> Option<u64> {
        self.gap
    }

    async fn next(&mut self) -> Result<SourceMessage, SourceError> {
        loop {
            let wire = Arc::clone(&self.wire);
            let arrived = wire.arrived.notified();
            if let Some(message) = self.next_ready() {
                return message;
            }
            arrived.await;
        }
    }

    fn next_ready(&mut self) -> Option<Result<SourceMessage, SourceError>> {
        if let Some(payload) = self.wire.offered.lock().unwrap().pop_front() {
            let node = Some(Arc::from("node-1"));
            return Some(Ok(SourceMessage { place: None, payload, probe: None, node }));
        }
        let payload = self.wire.stream.lock().unwrap().get(self.next as usize)?.clone();
        self.next += 1;
        Some(Ok(SourceMessage {
            place: Some(StreamPlace { sequence: self.next, published_us: 0, pending: 0 }),
            payload,
            probe: None,
            node: None,
        }))
    }
}

#[async_trait]
impl Transport for Arc<Wire> {
    type Messages = Reader;

    async fn messages(&self, head: &Head) -> Result<Reader, SourceError> {
        assert!(head.incarnation == "one" || head.stream_sequence == 0);
        let first = *self.forgotten.lock().unwrap() + 1;
        let gap = (first > head.stream_sequence + 1).then_some(first);
        Ok(Reader { wire: Arc::clone(self), next: head.stream_sequence.max(first - 1), gap })
    }

    async fn announce(&self, frames: &[Frame]) {
        let mut announced = self.announced.lock().unwrap();
        for frame in frames {
            let before = announced.insert(frame.position.0, frame.clone());
            assert!(before.is_none_or(|before| before == *frame), "a position with two events");
        }
    }

    async fn announce_progress(&self, _: &[ExecState]) {}

    async fn announce_mark(&self, mark: &StreamMark) {
        let stream = self.stream.lock().unwrap();
        assert!(mark.sequence <= stream.len() as u64, "what was not published is not recorded");
    }

    async fn announce_head(&self, head: Position, _: RecorderLag) {
        let mut last = self.head.lock().unwrap();
        *last = head.max(*last);
    }

    async fn answer(&self, _: &[String], _: Result<(), ProbeFailure>) {}

    async fn bury(&self, payload: Bytes) -> Result<(), PublishError> {
        self.dead.lock().unwrap().push(payload);
        Ok(())
    }

    async fn forget(&self, mark: &StreamMark) -> Result<(), SourceError> {
        let mut forgotten = self.forgotten.lock().unwrap();
        assert!(mark.sequence >= *forgotten);
        *forgotten = mark.sequence;
        Ok(())
    }
}

/// A store that fails: before the commit, after it, or always when a batch holds a certain event.
#[derive(Debug)]
struct Flaky {
    store: Arc<dyn EventStore>,
    calls: AtomicU32,
    fails: bool,
    refused: Option<EventId>,
    /// How many appends more it cannot do, whatever they hold.
    cannot: AtomicU32,
}

fn broken() -> StoreError {
    StoreError::Unavailable { operation: "append", source: "cable cut".into() }
}

#[async_trait]
impl EventStore for Flaky {
    async fn head(&self) -> Result<Head, StoreError> {
        if self.fails && self.calls.fetch_add(1, Ordering::Relaxed) % 4 == 3 {
            return Err(broken());
        }
        self.store.head().await
    }

    async fn append(&self, batch: &AppendBatch) -> Result<(), AppendError> {
        let left = self.cannot.load(Ordering::Relaxed);
        if left > 0 {
            self.cannot.store(left - 1, Ordering::Relaxed);
            let (operation, source) = ("append", "no such table, or no room".into());
            return Err(AppendError::Store(match left % 3 {
                0 => StoreError::Unavailable { operation, source },
                1 => StoreError::Refused { operation, source },
                _ => StoreError::Damaged { operation, source },
            }));
        }
        if batch.events.iter().any(|event| Some(event.id) == self.refused) {
            return Err(AppendError::Store(StoreError::Unfit {
                operation: "append",
                source: "a rule".into(),
            }));
        }
        match self.calls.fetch_add(1, Ordering::Relaxed) % 5 {
            1 if self.fails => Err(AppendError::Store(broken())),
            3 if self.fails => {
                self.store.append(batch).await?;
                Err(AppendError::Store(broken()))
            }
            _ => self.store.append(batch).await,
        }
    }

    async fn events(&self, query: &EventQuery) -> Result<Vec<FoundEvent>, StoreError> {
        self.store.events(query).await
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, StoreError> {
        self.store.position_at(time).await
    }

    async fn chain_ends(&self, tenant: Option<&TenantId>) -> Result<(Position, Vec<ChainPoint>), StoreError> {
        self.store.chain_ends(tenant).await
    }

    async fn rows(&self, query: &RowQuery) -> Result<Vec<StoredRow>, StoreError> {
        self.store.rows(query).await
    }

    async fn live_rows(&self, kind: &'static str) -> Result<(Position, Vec<StoredRow>), StoreError> {
        self.store.live_rows(kind).await
    }

    async fn known_ids(&self, ids: &[EventId]) -> Result<Vec<EventId>, StoreError> {
        self.store.known_ids(ids).await
    }

    async fn floors(&self) -> Result<Vec<Floor>, StoreError> {
        self.store.floors().await
    }
}

fn event(data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: Some(SandboxId::from_bytes([1; 16])),
        time: Utc.timestamp_opt(1_750_000_000, 0).single().unwrap(),
        actor: Actor::Executor("node-1".parse().unwrap()),
        cause: None,
        request_id: None,
        traceparent: None,
        data: data.into(),
    }
}

fn read(path: &str) -> Event {
    event(FileRead { path: path.to_owned(), size: 1, range: None })
}

fn started(exec: ExecId) -> Event {
    let spec = serde_json::from_value(serde_json::json!({ "argv": ["true"] })).unwrap();
    event(ExecStarted { exec, spec, env_names: vec![], pid: 7 })
}

fn output(exec: ExecId, offset: u64, bytes: &'static [u8]) -> Event {
    event(ExecOutput::new(exec, OutputStream::Stdout, offset, bytes))
}

struct Setting {
    _directory: tempfile::TempDir,
    store: Record,
    wire: Arc<Wire>,
    stop: CancellationToken,
}

impl Setting {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("events.db").display());
        Self {
            store: store::open_store(&url).await.unwrap(),
            _directory: directory,
            wire: Arc::default(),
            stop: CancellationToken::new(),
        }
    }

    fn recorder(&self, store: Record) -> JoinHandle<()> {
        tokio::spawn(run(Arc::clone(&self.wire), store, self.stop.clone()))
    }

    fn flaky(&self, fails: bool, refused: Option<EventId>, cannot: u32) -> Record {
        let (calls, cannot) = (AtomicU32::new(0), AtomicU32::new(cannot));
        let store = Arc::clone(&self.store.store);
        Record { store: Arc::new(Flaky { store, calls, fails, refused, cannot }), ..self.store.clone() }
    }

    async fn until(&self, what: &str, holds: impl AsyncFn(&Self) -> bool) {
        for _ in 0..3_000 {
            if holds(self).await {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }

    async fn until_recorded(&self, sequence: u64) {
        self.until("recorded", async |setting| {
            setting.store.head().await.unwrap().stream_sequence == sequence
        })
        .await;
    }
}

/// 60 execs in 240 messages.
fn send_work(wire: &Wire) {
    for n in 0..60 {
        let exec = ExecId::from_bytes([n; 16]);
        wire.send_events(&[started(exec), output(exec, 0, b"hello ")]);
        wire.send_events(&[output(exec, 6, b"world")]);
        wire.send_events(&[output(exec, 0, b"hello world!")]);
        wire.send_events(&[read("/a")]);
    }
}

async fn check_work(store: &Record) {
    for n in 0..60 {
        let exec = ExecId::from_bytes([n; 16]);
        let chunks = store.output.read(exec, OutputStream::Stdout, 0, 1000).await.unwrap();
        let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
        assert_eq!(bytes, b"hello world!");
    }
    verifies(store, Position(60 * 5)).await;
}

/// The log is whole, up to its end at a position.
async fn verifies(store: &Record, end: Position) {
    let report = audit::verify_store(store, &Default::default()).await.unwrap();
    assert_eq!((report.finding, report.last), (None, end));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_is_what_is_recorded() {
    let setting = Setting::new().await;
    let recorder = setting.recorder(setting.store.clone());
    send_work(&setting.wire);
    setting.until_recorded(240).await;
    check_work(&setting.store).await;
    setting
        .until("the transport forgets", async |setting| *setting.wire.forgotten.lock().unwrap() == 240)
        .await;
    setting.stop.cancel();
    recorder.await.unwrap();
    let recorded = setting.store.read(&EventFilter::default(), Position::ZERO, 1000).await.unwrap();
    let announced: Vec<Frame> = setting.wire.announced.lock().unwrap().values().cloned().collect();
    assert_eq!(announced, recorded);
    assert_eq!(*setting.wire.head.lock().unwrap(), Position(300));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_loses_and_doubles_nothing() {
    let setting = Setting::new().await;
    let recorder = setting.recorder(setting.flaky(true, None, 0));
    for _ in 0..4 {
        send_work(&setting.wire);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    setting.until_recorded(960).await;
    let execs = setting.store.live_execs().await.unwrap();
    assert_eq!(execs.len(), 60);
    // 60 times started, three pieces and four reads.
    verifies(&setting.store, Position(60 * 8)).await;
    setting
        .until("the head is announced", async |setting| {
            *setting.wire.head.lock().unwrap() == Position(60 * 8)
        })
        .await;
    setting.stop.cancel();
    recorder.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_recorders_write_one_log() {
    let setting = Setting::new().await;
    let recorders = [setting.recorder(setting.store.clone()), setting.recorder(setting.flaky(true, None, 0))];
    send_work(&setting.wire);
    setting
        .until("all is recorded", async |setting| {
            setting.store.head().await.unwrap().position == Position(300)
        })
        .await;
    check_work(&setting.store).await;
    setting.stop.cancel();
    for recorder in recorders {
        recorder.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_put_aside_and_the_rest_is_recorded() {
    let setting = Setting::new().await;
    let mut newer = read("/b").to_frame().unwrap();
    let header = String::from_utf8(newer.header.to_vec()).unwrap();
    newer.header = header.replace("file.read", "file.dreamt").into();
    let mixed = encode_batch(&[read("/a").to_frame().unwrap(), newer, read("/c").to_frame().unwrap()]);
    setting.wire.send(Bytes::from_static(b"garbage"));
    setting.wire.send(mixed.clone());
    setting.wire.send_events(&[read("/d")]);
    let recorder = setting.recorder(setting.store.clone());
    setting.until_recorded(3).await;
    assert_eq!(setting.store.head().await.unwrap().position, Position(3));
    assert_eq!(*setting.wire.dead.lock().unwrap(), [Bytes::from_static(b"garbage"), mixed]);
    setting.stop.cancel();
    recorder.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_database_refuses_does_not_hold_up_the_others() {
    let setting = Setting::new().await;
    let bad = read("/bad");
    setting.wire.send_events(&[read("/a")]);
    setting.wire.send_events(std::slice::from_ref(&bad));
    setting.wire.send_events(&[read("/b")]);
    let recorder = setting.recorder(setting.flaky(false, Some(bad.id), 0));
    setting.until_recorded(3).await;
    assert_eq!(setting.store.head().await.unwrap().position, Position(2));
    assert_eq!(setting.wire.dead.lock().unwrap().len(), 1);
    setting.stop.cancel();
    recorder.await.unwrap();
}

/// Long enough for a message to be taken for one that can never be recorded, if anything but the message itself counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_cannot_now_puts_nothing_aside() {
    let setting = Setting::new().await;
    setting.wire.send_events(&[read("/a")]);
    let recorder = setting.recorder(setting.flaky(false, None, 9));
    setting.until_recorded(1).await;
    assert_eq!(setting.store.head().await.unwrap().position, Position(1));
    assert!(setting.wire.dead.lock().unwrap().is_empty());
    setting.stop.cancel();
    recorder.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_id_that_two_facts_share_does_not_hold_up_the_others() {
    let setting = Setting::new().await;
    let exec = ExecId::from_bytes([1; 16]);
    let first = started(exec);
    let mut clash = event(ExecExited {
        exec,
        code: 0,
        signal: None,
        asked: None,
        ended: ExecEnded {
            stdout_bytes: 0,
            stderr_bytes: 0,
            truncated_bytes: 0,
            duration_us: 1,
            ..ExecEnded::default()
        },
    });
    clash.id = first.id;
    let recorder = setting.recorder(setting.store.clone());
    setting.wire.send_events(&[first]);
    setting.until_recorded(1).await;
    setting.wire.send_events(&[clash]);
    setting.wire.send_events(&[output(exec, 0, b"b")]);
    setting.until_recorded(3).await;
    assert_eq!(setting.store.head().await.unwrap().position, Position(2));
    setting.stop.cancel();
    recorder.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_starts_once_also_after_the_recorder_forgot_it() {
    let setting = Setting::new().await;
    let exec = ExecId::from_bytes([9; 16]);
    let first = setting.recorder(setting.store.clone());
    setting.wire.send_events(&[started(exec), output(exec, 0, b"hello ")]);
    setting.until_recorded(1).await;
    first.abort();
    // A recorder with nothing in memory takes the start for new; the store does not.
    let second = setting.recorder(setting.store.clone());
    setting.wire.send_events(&[started(exec), output(exec, 0, b"hello world"), read("/a")]);
    setting.until_recorded(2).await;
    setting.stop.cancel();
    second.await.unwrap();
    let state = setting.store.exec(exec).await.unwrap().unwrap();
    assert_eq!(state.stdout_bytes, 11);
    // The start, two pieces and the read.
    verifies(&setting.store, Position(4)).await;
}

/// A sandbox that runs on node 1.
fn running() -> [Event; 3] {
    let node: NodeId = "node-1".parse().unwrap();
    let spec = serde_json::json!({
        "provider": "docker", "image": "base", "memory_mib": 1, "cpu_millis": 1, "pids_limit": 1,
    });
    let at = Utc.timestamp_opt(1_900_000_000, 0).single().unwrap();
    [
        event(SandboxRequested {
            spec: serde_json::from_value(spec).unwrap(),
            expires_at: at,
            lifetime_ends_at: at,
            term: None,
        }),
        event(SandboxStarting { node: node.clone() }),
        event(SandboxRunning {
            node,
            runtime_id: "r".to_owned(),
            took_us: 1,
            expires_at: None,
            lifetime_ends_at: None,
            address: None,
        }),
    ]
}

fn exited(exec: ExecId, stdout_bytes: u64) -> Event {
    let ended = ExecEnded { stdout_bytes, ..ExecEnded::default() };
    event(ExecExited { exec, code: 0, signal: None, asked: None, ended })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_offered_is_recorded_once_whatever_comes_through_the_stream_later() {
    let setting = Setting::new().await;
    let recorder = setting.recorder(setting.store.clone());
    setting.wire.send_events(&running());
    setting.until_recorded(1).await;
    let exec = ExecId::from_bytes([9; 16]);
    let whole = [started(exec), output(exec, 0, b"hello"), exited(exec, 5)];
    setting.wire.offer_events(&whole);
    setting
        .until("the offer is recorded", async |setting| {
            let state = setting.store.exec(exec).await.unwrap();
            state.is_some_and(|state| state.end.is_some())
        })
        .await;
    let head = setting.store.head().await.unwrap();
    assert_eq!(
        (head.position, head.stream_sequence),
        (Position(6), 1),
        "nothing of the stream is recorded by that"
    );
    // Whoever offered it did not hear so in time; and a recorder that knows nothing of it begins.
    setting.wire.send_events(&whole);
    setting.until_recorded(2).await;
    recorder.abort();
    let second = setting.recorder(setting.store.clone());
    setting.wire.send_events(&whole);
    setting.wire.send_events(&[read("/a")]);
    setting.until_recorded(4).await;
    setting.stop.cancel();
    second.await.unwrap();
    verifies(&setting.store, Position(7)).await;
    assert!(setting.wire.dead.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_offer_only_what_fits_is_recorded_and_nothing_is_put_aside() {
    let setting = Setting::new().await;
    let recorder = setting.recorder(setting.store.clone());
    let exec = ExecId::from_bytes([9; 16]);
    // Of a sandbox that nobody knows; output without its start; no events at all.
    setting.wire.offer_events(&[started(exec)]);
    setting.wire.offered.lock().unwrap().push_back(Bytes::from_static(b"no events"));
    setting.wire.send_events(&running());
    setting.until_recorded(1).await;
    setting.wire.offer_events(&[output(exec, 0, b"hello")]);
    setting.wire.offer_events(&[Event { sandbox: Some(SandboxId::from_bytes([2; 16])), ..started(exec) }]);
    setting.wire.send_events(&[started(exec), output(exec, 0, b"hello")]);
    setting.until_recorded(2).await;
    setting.stop.cancel();
    recorder.await.unwrap();
    verifies(&setting.store, Position(5)).await;
    assert!(setting.wire.dead.lock().unwrap().is_empty());
}

/// The second batch is drafted while the first is being appended, so the store does not know of it yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_again_in_the_next_batch_is_recorded_once() {
    let setting = Setting::new().await;
    let reads: Vec<Event> = (0..3_000).map(|_| read("/a")).collect();
    let messages: Vec<&[Event]> = reads.chunks(100).collect();
    for (number, events) in messages.iter().enumerate() {
        setting.wire.send_events(events);
        if let Some(before) = number.checked_sub(15) {
            setting.wire.send_events(messages[before]);
        }
    }
    let recorder = setting.recorder(setting.store.clone());
    setting.until_recorded(45).await;
    setting.stop.cancel();
    recorder.await.unwrap();
    verifies(&setting.store, Position(3_000)).await;
}

#[test]
fn a_record_that_another_recorder_took_further_has_lost_nothing() {
    let head = |position, stream_sequence, incarnation: &str| Head {
        position: Position(position),
        stream_sequence,
        incarnation: incarnation.to_owned(),
    };
    let asked = head(7, 5, "one");
    assert!(!is_overtaken(&asked, &asked), "an old copy: what was forgotten is lost");
    // Also where all that came was recorded already, or the stream was made anew.
    for now in [head(9, 6, "one"), head(7, 6, "one"), head(7, 1, "two")] {
        assert!(is_overtaken(&asked, &now), "{now:?}");
    }
}
