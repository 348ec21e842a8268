//! The facts about how bodies are kept: compressed, sealed, erased, dropped.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use events::*;
use record::*;
use recorder::{Retention, RetentionPolicy, Sealing, SteadyClock, Tell};
use secrets::MasterKey;
use transport::PublishError;

use super::Subject;
use super::scenario::*;

const STDOUT: OutputStream = OutputStream::Stdout;

/// Whatever is compressed comes back as it was, and noise does not grow.
pub async fn bodies_come_back_however_they_are_kept(subject: &Subject) {
    let store = subject.open().await;
    let mut log = Recorder::default();
    let text: Vec<u8> =
        (0..2_000).flat_map(|line| format!("line {line} of a build\n").into_bytes()).collect();
    let noise = noise(100_000);
    // Looks like text in the beginning, and is noise after that.
    let mixed = [&text[..10_000], &noise[..50_000]].concat();
    let bodies = [b"short".to_vec(), vec![b'a'; 255], vec![b'a'; 256], text.clone(), noise.clone(), mixed];
    let (mut events, mut whole) = (vec![event(Some(1), started(1))], Vec::new());
    for body in &bodies {
        events.push(event(Some(1), output(1, OutputStream::Stdout, whole.len() as u64, body.clone())));
        whole.extend_from_slice(body);
    }
    events.push(event(Some(1), ExecInput::new(exec_id(1), text.clone())));
    let batch = log.batch(events);
    let kept = |index: usize| batch.events[index].body.as_ref().unwrap().stored.as_ref().unwrap();
    assert_eq!(
        [1, 2, 3, 4, 5].map(|index| kept(index).encoding),
        [Encoding::Raw, Encoding::Raw, Encoding::Zstd, Encoding::Zstd, Encoding::Raw]
    );
    assert!(kept(4).bytes.len() * 5 < text.len(), "{}", kept(4).bytes.len());
    for index in 1..=7 {
        assert!(kept(index).bytes.len() <= batch.events[index].frame.body.len());
    }
    store.append(&batch).await.unwrap();
    assert_eq!(read_all(&store).await, frames(&[&batch]));
    let chunks = store.output.read(exec_id(1), OutputStream::Stdout, 3, usize::MAX).await.unwrap();
    let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
    assert_eq!(bytes, whole[3..]);
    let chained = store.evidence.read_chain(None, Position::ZERO, Position(100), 100).await.unwrap();
    assert_eq!(chained[4].body.as_ref(), Some(kept(4)));
    assert_eq!(chained[0].body_hash, None);
    assert_eq!(verify(&store).await.unwrap(), batch.end());
}

fn erased(sandbox: u8) -> Event {
    event(Some(sandbox), SandboxErased {})
}

fn sealing(master_key: &MasterKey, enabled: bool) -> Sealing {
    Sealing { enabled, master_key: Some(master_key.clone()) }
}

async fn stdout(store: &Record, exec: u8, offset: u64) -> Result<Vec<u8>, StoreError> {
    let chunks = store.output.read(exec_id(exec), STDOUT, offset, usize::MAX).await?;
    Ok(chunks.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect())
}

fn missing(frames: &[Frame]) -> Vec<Option<MissingBody>> {
    frames.iter().map(|frame| frame.missing).collect()
}

pub async fn sealed_output_is_read_with_the_master_key_only(subject: &Subject) {
    let master_key = MasterKey::random().unwrap();
    let store = subject.open_with(&master_key).await;
    let mut log = Recorder::sealing(&master_key);
    let text = b"the secret of the sandbox ".repeat(100);
    let first = log.batch(short_exec(1, &text));
    store.append(&first).await.unwrap();
    let mut more = short_exec(2, b"short secret");
    more.insert(1, event(Some(1), ExecInput::new(exec_id(2), b"typed".to_vec())));
    more.extend([event(Some(2), started(3)), event(Some(2), output(3, STDOUT, 0, text.clone()))]);
    let second = log.batch(more);
    store.append(&second).await.unwrap();
    assert_eq!(read_all(&store).await, frames(&[&first, &second]));
    assert_eq!(stdout(&store, 1, 4).await.unwrap(), text[4..]);
    assert_eq!(stdout(&store, 2, 0).await.unwrap(), b"short secret");
    let keys = store.keys.of(&[sandbox_id(1), sandbox_id(2), sandbox_id(3)]).await.unwrap();
    assert_eq!(keys.len(), 2, "a key for each sandbox");
    let chained = store.evidence.read_chain(None, Position::ZERO, Position(100), 100).await.unwrap();
    let encodings: Vec<Encoding> =
        chained.iter().filter_map(|frame| Some(frame.body.as_ref()?.encoding)).collect();
    use Encoding::{SealedRaw, SealedZstd};
    assert_eq!(encodings, [SealedZstd, SealedRaw, SealedRaw, SealedZstd]);
    assert!(!chained.iter().any(|frame| {
        frame.body.as_ref().is_some_and(|body| body.bytes.windows(6).any(|window| window == b"secret"))
    }));
    assert_eq!(verify(&store).await.unwrap(), second.end());
    // Without the master key there is an error and not a byte; the chain verifies all the same.
    for other in [subject.open().await, subject.open_with(&MasterKey::random().unwrap()).await] {
        assert!(matches!(stdout(&other, 1, 0).await, Err(StoreError::Damaged { .. })));
        let read = other.read(&EventFilter::default(), Position::ZERO, 10).await;
        assert!(matches!(read, Err(StoreError::Damaged { .. })));
        assert_eq!(verify(&other).await.unwrap(), second.end());
    }
    assert_eq!(store.keys.protection(sandbox_id(1)).await.unwrap(), Protection::Sealed);
    assert_eq!(store.keys.protection(sandbox_id(3)).await.unwrap(), Protection::None);
}

pub async fn what_is_erased_is_gone_for_everybody_at_once(subject: &Subject) {
    let master_key = MasterKey::random().unwrap();
    let store = subject.open_with(&master_key).await;
    let other = subject.open_with(&master_key).await;
    let mut log = Recorder::sealing(&master_key);
    let mut first = vec![event(Some(1), requested(None))];
    first.extend(short_exec(1, b"secret"));
    store.append(&log.batch(first)).await.unwrap();
    let mut theirs = short_exec(2, b"theirs");
    theirs.iter_mut().for_each(|event| event.sandbox = Some(sandbox_id(2)));
    store.append(&log.batch(theirs)).await.unwrap();
    assert_eq!(stdout(&other, 1, 0).await.unwrap(), b"secret");
    let key = store.keys.of(&[sandbox_id(1)]).await.unwrap().remove(0).sealed.unwrap();
    assert!(!subject.is_sqlite() || subject.is_on_disk(&key));
    // It lives on, and writes before and after its key is destroyed.
    let batch = log.batch(vec![
        event(Some(1), started(3)),
        event(Some(1), output(3, STDOUT, 0, "before")),
        erased(1),
        event(Some(1), output(3, STDOUT, 6, "after")),
    ]);
    assert!(batch.events[3].frame.body.is_empty(), "what comes too late is not announced either");
    store.append(&batch).await.unwrap();
    store.keys.sweep().await.unwrap();
    for store in [&store, &other] {
        let gone = |why, next_offset| move |error: &StoreError| matches!(error, StoreError::Gone { why: w, next_offset: n } if (*w, *n) == (why, next_offset));
        for (exec, offset, end) in [(1, 0, 6), (1, 5, 6), (3, 0, 11), (3, 6, 11), (3, 10, 11)] {
            let error = stdout(store, exec, offset).await.unwrap_err();
            assert!(gone(Gone::Erased, end)(&error), "{exec} {offset} {error:?}");
        }
        assert_eq!(stdout(store, 3, 11).await.unwrap(), b"");
        assert_eq!(stdout(store, 2, 0).await.unwrap(), b"theirs");
        let filter = EventFilter { sandbox: Some(sandbox_id(1)), ..EventFilter::default() };
        let read = store.read(&filter, Position::ZERO, 100).await.unwrap();
        let erased = |length| Some(MissingBody { why: Gone::Erased, length });
        assert_eq!(missing(&read), [None, None, erased(6), None, None, erased(6), None, erased(5)]);
        assert!(read.iter().all(|frame| frame.body.is_empty()));
        assert_eq!(store.keys.protection(sandbox_id(1)).await.unwrap(), Protection::Erased);
        assert_eq!(verify(store).await.unwrap(), batch.end());
    }
    if subject.is_sqlite() {
        assert!(!subject.is_on_disk(&key), "the key is still in a file");
    }
    // Another recorder, to whom nothing is said of encryption, keeps nothing of it either.
    log.restart_encoder(&store, sealing(&master_key, false)).await;
    let late = log.batch(vec![event(Some(1), output(3, STDOUT, 11, "late")), erased(1)]);
    store.append(&late).await.unwrap();
    assert!(stdout(&store, 3, 11).await.is_err());
    assert_eq!(verify(&store).await.unwrap(), late.end());
}

pub async fn a_sandbox_that_is_erased_early_never_has_a_key(subject: &Subject) {
    let master_key = MasterKey::random().unwrap();
    let store = subject.open_with(&master_key).await;
    let mut log = Recorder::sealing(&master_key);
    store.append(&log.batch(vec![event(Some(1), requested(None)), erased(1)])).await.unwrap();
    store.append(&log.batch(short_exec(1, b"secret"))).await.unwrap();
    assert!(matches!(
        stdout(&store, 1, 0).await,
        Err(StoreError::Gone { why: Gone::Erased, next_offset: 6 })
    ));
    // Made and destroyed in one batch.
    let mut events = vec![
        event(Some(2), requested(None)),
        event(Some(2), started(2)),
        event(Some(2), output(2, STDOUT, 0, "secret")),
    ];
    events.push(erased(2));
    store.append(&log.batch(events)).await.unwrap();
    let keys = store.keys.of(&[sandbox_id(1), sandbox_id(2)]).await.unwrap();
    assert_eq!(keys.iter().map(|key| key.sealed.clone()).collect::<Vec<_>>(), [None, None]);
    assert!(stdout(&store, 2, 0).await.is_err());
}

pub async fn output_from_before_the_key_is_not_called_sealed(subject: &Subject) {
    let master_key = MasterKey::random().unwrap();
    let store = subject.open_with(&master_key).await;
    let mut log = Recorder::default();
    store.append(&log.batch(short_exec(1, b"plain"))).await.unwrap();
    log.restart_encoder(&store, sealing(&master_key, true)).await;
    store.append(&log.batch(short_exec(2, b"sealed"))).await.unwrap();
    assert_eq!(store.keys.protection(sandbox_id(1)).await.unwrap(), Protection::Partial);
    assert_eq!(stdout(&store, 1, 0).await.unwrap(), b"plain");
    assert_eq!(stdout(&store, 2, 0).await.unwrap(), b"sealed");
    // Once a sandbox has a key it stays that way, whatever the configuration says.
    log.restart_encoder(&store, sealing(&master_key, false)).await;
    let batch = log.batch(short_exec(3, b"still sealed"));
    assert_eq!(batch.events[1].body.as_ref().unwrap().stored.as_ref().unwrap().encoding, Encoding::SealedRaw);
    store.append(&batch).await.unwrap();
    assert_eq!(stdout(&store, 3, 0).await.unwrap(), b"still sealed");
}

type Clocks = Vec<(&'static str, chrono::DateTime<chrono::Utc>)>;

/// Hears what is told; the test records it.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Event>>>, Arc<Mutex<Clocks>>);

#[async_trait]
impl Tell for Told {
    async fn tell(&self, event: Event) -> Result<(), PublishError> {
        self.0.lock().unwrap().push(event);
        Ok(())
    }

    async fn clocks(&self) -> Clocks {
        self.1.lock().unwrap().clone()
    }
}

/// A log that grows second by second, and its retention.
struct Aging {
    store: Record,
    log: Recorder,
    told: Told,
    retention: Retention,
    machine: Arc<ManualClock>,
}

impl Aging {
    async fn new(subject: &Subject, output: Option<u64>, lifecycle: Option<u64>, now: i64) -> Self {
        let store = subject.open().await;
        let told = Told::default();
        let policy = RetentionPolicy {
            output: output.map(Duration::from_secs),
            lifecycle: lifecycle.map(Duration::from_secs),
        };
        let machine = Arc::new(ManualClock::new(at(now)));
        let clock = Arc::new(SteadyClock::new(Arc::<ManualClock>::clone(&machine)));
        let retention = Retention {
            log: Box::new(told.clone()),
            store: store.store.clone(),
            upkeep: store.upkeep.clone(),
            policy,
            clock,
        };
        Self { store, log: Recorder::default(), told, retention, machine }
    }

    /// Appends events of a time.
    async fn append(&mut self, seconds: i64, mut events: Vec<Event>) -> Position {
        events.iter_mut().for_each(|event| event.time = at(seconds));
        let batch = self.log.batch(events);
        self.store.append(&batch).await.unwrap();
        batch.end()
    }

    async fn checkpoint(&mut self, seconds: i64) -> EventId {
        let up_to = self.store.head().await.unwrap().position;
        let statement =
            CheckpointStatement { up_to, at: at(seconds), chains: vec![], previous: ChainHash::GENESIS };
        let checkpoint = AuditCheckpoint { statement, key_id: String::new(), signature: String::new() };
        let event = event(None, checkpoint);
        let id = event.id;
        self.append(seconds, vec![event]).await;
        id
    }

    /// One pass of retention, after which what it told is recorded, and another.
    async fn pass(&mut self) -> Vec<LogTrimmed> {
        self.retention.pass().await.unwrap();
        let told = std::mem::take(&mut *self.told.0.lock().unwrap());
        let trimmed = told
            .iter()
            .map(|event| {
                let EventData::Log(LogEvent::Trimmed(trimmed)) = &event.data else { panic!("not a floor") };
                trimmed.clone()
            })
            .collect();
        let batch = self.log.batch(told);
        self.store.append(&batch).await.unwrap();
        self.retention.pass().await.unwrap();
        trimmed
    }
}

pub async fn old_output_is_dropped_after_a_checkpoint_and_its_events_stay(subject: &Subject) {
    let mut aging = Aging::new(subject, Some(100), None, 200).await;
    let lines = |n: u64| {
        vec![
            event(Some(1), output(1, STDOUT, n * 10, "0123456789")),
            event(Some(1), output(1, OutputStream::Stderr, n * 10, "abcdefghij")),
        ]
    };
    aging.append(0, vec![event(Some(1), started(1))]).await;
    for n in 0..10 {
        aging.append(20 * n as i64, lines(n)).await;
    }
    // Nothing without a checkpoint.
    assert_eq!(aging.pass().await, []);
    let checkpoint = aging.checkpoint(190).await;
    // What is from before second 100: the start, and five times two pieces.
    let trimmed = LogTrimmed { class: RetentionClass::Output, up_to: Position(11), checkpoint };
    assert_eq!(aging.pass().await, [trimmed]);
    let store = aging.store.clone();
    assert_eq!(
        store.floors().await.unwrap(),
        [Floor { class: RetentionClass::Output, up_to: Position(11), checkpoint }]
    );
    for (offset, left) in [(50, 50), (55, 45), (100, 0)] {
        assert_eq!(stdout(&store, 1, offset).await.unwrap().len(), left, "{offset}");
    }
    for offset in [0, 49] {
        let error = stdout(&store, 1, offset).await.unwrap_err();
        assert!(matches!(error, StoreError::Gone { why: Gone::Expired, next_offset: 50 }), "{error:?}");
    }
    assert_eq!(store.output.start(exec_id(1), 0, 100).await.unwrap(), Some(Position(12)));
    let read = read_all(&store).await;
    let expired = Some(MissingBody { why: Gone::Expired, length: 10 });
    assert_eq!(missing(&read[..12]), [&[None][..], &[expired; 10], &[None]].concat());
    assert_eq!(verify(&store).await.unwrap(), store.head().await.unwrap().position);
    // What is above the floor is as safe as ever, and the floor does not go back.
    for sql in [
        "DELETE FROM bodies WHERE position = 12",
        "DELETE FROM events WHERE position = 1",
        "UPDATE retention SET floor = 3 WHERE class = 'output'",
        "DELETE FROM retention",
    ] {
        subject.raw(sql).await.expect_err(sql);
    }
    // Nothing more has grown old.
    assert_eq!(aging.pass().await, []);
}

pub async fn an_old_log_is_dropped_up_to_the_newest_checkpoint_while_nothing_happens(subject: &Subject) {
    let mut aging = Aging::new(subject, Some(100), None, 10_000).await;
    aging.append(0, short_exec(1, b"first")).await;
    let first = aging.checkpoint(1).await;
    aging.append(2, short_exec(2, b"second")).await;
    let trimmed = LogTrimmed { class: RetentionClass::Output, up_to: Position(3), checkpoint: first };
    assert_eq!(aging.pass().await, [trimmed]);
    assert!(stdout(&aging.store, 1, 0).await.is_err());
    assert_eq!(stdout(&aging.store, 2, 0).await.unwrap(), b"second");
}

pub async fn old_events_are_dropped_up_to_what_lives(subject: &Subject) {
    let mut aging = Aging::new(subject, None, Some(100), 1_000).await;
    let destroyed = || SandboxDestroyed { reason: DestroyReason::User };
    let mut first = vec![event(Some(1), requested(None))];
    first.extend(short_exec(1, b"one"));
    first.push(event(Some(1), destroyed()));
    aging.append(0, first).await;
    let born = aging.append(1, vec![event(Some(2), requested(None))]).await;
    let mut third = vec![event(Some(3), requested(None))];
    third.extend(short_exec(3, b"three"));
    third[1..].iter_mut().for_each(|event| event.sandbox = Some(sandbox_id(3)));
    third.push(event(Some(3), destroyed()));
    aging.append(2, third).await;
    let checkpoint = aging.checkpoint(500).await;
    let floor = Position(born.0 - 1);
    let trimmed = LogTrimmed { class: RetentionClass::Lifecycle, up_to: floor, checkpoint };
    assert_eq!(aging.pass().await, [trimmed]);
    let store = aging.store.clone();
    let all = EventFilter::default;
    let of = |sandbox| EventFilter { sandbox: Some(sandbox_id(sandbox)), ..all() };
    let is_trimmed = |read: Result<Vec<Frame>, StoreError>| matches!(read, Err(StoreError::Trimmed { floor: at }) if at == floor);
    // Who would miss something is told so.
    assert!(is_trimmed(store.read(&all(), Position::ZERO, 10).await));
    assert!(is_trimmed(store.read(&all(), Position(floor.0 - 1), 10).await));
    assert!(is_trimmed(store.read(&of(1), Position::ZERO, 10).await));
    let exec = EventFilter { exec: Some(exec_id(1)), ..all() };
    assert!(is_trimmed(store.read(&exec, Position::ZERO, 10).await));
    // Who would not, is not.
    assert_eq!(store.read(&all(), floor, 100).await.unwrap()[0].position, born);
    assert_eq!(store.read(&of(2), Position::ZERO, 10).await.unwrap().len(), 1);
    assert_eq!(store.read(&of(3), Position::ZERO, 10).await.unwrap().len(), 5);
    assert_eq!(store.read(&of(9), Position::ZERO, 10).await.unwrap(), []);
    // What things are is still known; of what was written nothing.
    assert!(store.sandbox(sandbox_id(1)).await.unwrap().unwrap().is_terminal());
    assert!(matches!(
        stdout(&store, 1, 0).await,
        Err(StoreError::Gone { why: Gone::Expired, next_offset: 3 })
    ));
    assert_eq!(stdout(&store, 3, 0).await.unwrap(), b"three");
    // Once the one that lived is gone, so may its events be.
    aging.append(600, vec![event(Some(2), destroyed())]).await;
    let second = aging.checkpoint(700).await;
    let trimmed = aging.pass().await;
    assert_eq!((trimmed[0].up_to > born, trimmed[0].checkpoint), (true, second));
    assert!(is_at_least(&store, born).await);
}

async fn is_at_least(store: &Record, born: Position) -> bool {
    let trimmed = store.read(&EventFilter::default(), Position::ZERO, 10).await;
    matches!(trimmed, Err(StoreError::Trimmed { floor }) if floor > born)
}

/// Whole partitions go at once; the rest goes row by row.
pub async fn a_million_positions_of_output_are_one_partition(subject: &Subject) {
    if subject.is_sqlite() {
        return;
    }
    let store = subject.open().await;
    // As if much had happened before.
    let far = 999_998;
    subject.raw(&format!("UPDATE head SET position = {far}")).await.unwrap();
    let mut log = Recorder::after(Position(far));
    store.append(&log.batch(vec![event(Some(1), started(1))])).await.unwrap();
    for n in 0..4 {
        let piece = event(Some(1), output(1, STDOUT, n * 4, "text"));
        store.append(&log.batch(vec![piece])).await.unwrap();
    }
    subject
        .raw("SELECT 1 / count(*) FROM bodies_0")
        .await
        .expect_err("nothing stands in the first partition");
    subject.raw("SELECT 1 / (count(*) / 4) FROM bodies_1").await.unwrap();
    assert_eq!(stdout(&store, 1, 0).await.unwrap(), b"texttexttexttext");
    let trimmed = |up_to| LogTrimmed {
        class: RetentionClass::Output,
        up_to: Position(up_to),
        checkpoint: EventId::new(),
    };
    store.append(&log.batch(vec![event(None, trimmed(1_000_001))])).await.unwrap();
    while store.upkeep.drop_some(RetentionClass::Output).await.unwrap() > 0 {}
    subject.raw("SELECT * FROM bodies_0").await.expect_err("the partition is gone");
    assert!(matches!(
        stdout(&store, 1, 0).await,
        Err(StoreError::Gone { why: Gone::Expired, next_offset: 8 })
    ));
    assert_eq!(stdout(&store, 1, 8).await.unwrap(), b"texttext");
    // The next one is there before it is needed.
    subject.raw("SELECT * FROM bodies_2").await.unwrap();
}

/// A clock that is two hours ahead for a while must not drop what has an hour to live, and one that disagrees with others
/// must not drop anything.
pub async fn nothing_is_dropped_while_the_clocks_disagree(subject: &Subject) {
    let hour = 3600;
    let mut aging = Aging::new(subject, Some(hour), Some(hour), 600).await;
    aging.append(0, short_exec(1, b"kept")).await;
    aging.checkpoint(10).await;
    for jump in [chrono::TimeDelta::hours(2), chrono::TimeDelta::hours(-2)] {
        aging.machine.jump(jump);
        assert!(aging.pass().await.is_empty());
        aging.machine.advance(chrono::TimeDelta::seconds(150));
        assert!(aging.pass().await.is_empty());
        aging.machine.jump(-jump);
        assert!(aging.pass().await.is_empty());
    }
    // Now it is old, but others say that it is not; or that it is very old.
    aging.machine.advance(chrono::TimeDelta::hours(2));
    let now = aging.machine.now();
    for ahead in [-7200, 7200] {
        *aging.told.1.lock().unwrap() =
            vec![("NATS", now), ("the database", now + chrono::TimeDelta::seconds(ahead))];
        assert!(aging.pass().await.is_empty());
    }
    *aging.told.1.lock().unwrap() =
        vec![("NATS", now), ("the database", now + chrono::TimeDelta::seconds(30))];
    // An event of a time to come: somebody's clock is wrong.
    aging.append(20_000, vec![event(None, running())]).await;
    assert!(aging.pass().await.is_empty());
    assert_eq!(stdout(&aging.store, 1, 0).await.unwrap(), b"kept");
    aging.append(7_800, vec![event(None, running())]).await;
    assert!(!aging.pass().await.is_empty());
}
