//! The runtime on a real nats-server, with a real recorder and store: whoever dies without a word is replaced, and whoever leaves
//! in order leaves nothing to be repeated.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use events::{
    Actor, Clock, Event, EventData, EventId, Position, SystemClock, TemplateDeleted, TemplateEvent, TenantId,
};
use feed::{Feed, Recorded};
use reactor::{Effecting, Failure, Loaded, LogOutside, Next, Reactor, Runtime, Touched, Turn};
use record::{Record, StoreError};
use recorder::JetStreamTransport;
use tokio_util::sync::CancellationToken;
use transport::{Log, NatsConfig};

const PATIENCE: Duration = Duration::from_secs(90);
const NAMES: usize = 10;

/// The services, and a log that grows.
struct World {
    nats: Child,
    url: String,
    dir: tempfile::TempDir,
    stop: CancellationToken,
}

impl World {
    async fn start() -> (Self, Log) {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.path().join("nats.conf");
        let kept = dir.path().join("jetstream");
        let text =
            format!("listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n", kept.display());
        std::fs::write(&config, text).unwrap();
        let nats = Command::new("nats-server")
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is installed; run scripts/setup");
        let url = format!("nats://127.0.0.1:{port}");
        let world = Self { nats, url, dir, stop: CancellationToken::new() };
        let log = world.log().await;
        let recorder = recorder::run(JetStreamTransport::new(&log), world.store().await, world.stop.clone());
        tokio::spawn(recorder);
        (world, log)
    }

    async fn log(&self) -> Log {
        connect(&self.url).await
    }

    async fn store(&self) -> Record {
        open(&self.database()).await
    }

    fn database(&self) -> String {
        format!("sqlite:{}", self.dir.path().join("events.db").display())
    }

    /// A process that works, or waits for its turn to.
    fn process(&self, diary: &Diary) -> Process {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (url, database, diary, stop) =
            (self.url.clone(), self.database(), diary.clone(), CancellationToken::new());
        let told = stop.clone();
        let work = runtime.spawn(async move {
            let log = connect(&url).await;
            let feed = Feed::start(&log, open(&database).await).await.unwrap();
            let toy = Toy { diary, open: HashMap::new() };
            Runtime::new(toy, LogOutside::new(log, feed), Arc::new(SystemClock), told).run().await;
        });
        Process { runtime: Some(runtime), work, stop }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = self.nats.kill();
        let _ = self.nats.wait();
    }
}

async fn connect(url: &str) -> Log {
    Log::connect(&NatsConfig::new(url)).await.unwrap()
}

async fn open(database: &str) -> Record {
    store::open_store(database).await.unwrap()
}

struct Process {
    runtime: Option<tokio::runtime::Runtime>,
    work: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
}

impl Process {
    /// All its tasks stop where they stand: nothing is given back, nothing is said.
    fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    async fn leave(mut self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, &mut self.work).await.expect("it does not stop").unwrap();
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What was done, by whichever process.
#[derive(Clone, Default)]
struct Diary(Arc<Mutex<Vec<u64>>>);

impl Diary {
    fn times(&self) -> BTreeMap<u64, usize> {
        let mut times = BTreeMap::new();
        for position in self.0.lock().unwrap().iter() {
            *times.entry(*position).or_default() += 1;
        }
        times
    }

    async fn until(&self, what: &str, holds: impl Fn(&BTreeMap<u64, usize>) -> bool) {
        let began = Instant::now();
        while !holds(&self.times()) {
            assert!(began.elapsed() < PATIENCE, "never: {what}; {:?}", self.times());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Does something for each deleted template, in order for each name.
struct Toy {
    diary: Diary,
    open: HashMap<String, VecDeque<Position>>,
}

#[async_trait]
impl Reactor for Toy {
    type Key = String;
    type Effect = Position;
    type Outcome = Position;

    fn name(&self) -> &'static str {
        "toy"
    }

    fn types(&self) -> Vec<&'static str> {
        vec!["template.deleted"]
    }

    fn term(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn keeps_cursor(&self) -> bool {
        true
    }

    async fn load(&mut self, cursor: Option<Position>) -> Result<Loaded<String>, StoreError> {
        self.open.clear();
        Ok(Loaded { position: cursor.unwrap_or(Position::ZERO), keys: Vec::new() })
    }

    fn apply(&mut self, recorded: &Recorded, touched: &mut Touched<String>) {
        if let EventData::Template(TemplateEvent::Deleted(deleted)) = &recorded.event.data {
            self.open.entry(deleted.name.clone()).or_default().push_back(recorded.position());
            touched.entity(deleted.name.clone());
        }
    }

    fn decide(&mut self, name: &String, _: &mut Turn<'_>) -> Next<Position> {
        self.open.get(name).and_then(|open| open.front()).map_or(Next::Rest, |position| Next::Act(*position))
    }

    fn perform(&self, _: &String, position: Position) -> Effecting<Position> {
        let diary = self.diary.clone();
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            diary.0.lock().unwrap().push(position.0);
            Ok(position)
        })
    }

    fn settle(&mut self, name: &String, outcome: Result<Position, &Failure>, _: &mut Turn<'_>) {
        if let (Ok(done), Some(open)) = (outcome, self.open.get_mut(name)) {
            open.retain(|position| *position != done);
        }
    }
}

async fn grow(log: &Log, events: usize) {
    for number in 0..events {
        let name = format!("n{}", number % NAMES);
        let event = Event {
            id: EventId::new(),
            tenant: TenantId::default_tenant(),
            sandbox: None,
            time: SystemClock.now(),
            actor: Actor::Client { key: None, user: None },
            cause: None,
            request_id: None,
            traceparent: None,
            data: TemplateDeleted { name }.into(),
        };
        log.publish(&[event]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_is_replaced_and_whoever_leaves_leaves_nothing_to_repeat() {
    let (world, log) = World::start().await;
    let diary = Diary::default();
    let first = world.process(&diary);
    grow(&log, 100).await;
    diary.until("the first one works", |times| times.len() >= 20).await;
    let second = world.process(&diary);
    first.kill();
    grow(&log, 100).await;
    diary.until("all is done", |times| times.len() == 200).await;
    let times = diary.times();
    // One effect of each name may have been done without having been noted, and what was noted since the cursor was last kept is
    // done again; never more than that, and nothing a third time.
    assert!(times.values().all(|times| *times <= 2), "{times:?}");
    assert_eq!(times.keys().copied().collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());

    second.leave().await;
    let before = diary.0.lock().unwrap().len();
    let third = world.process(&diary);
    grow(&log, 10).await;
    diary.until("the third one goes on", |times| times.len() == 210).await;
    let done: Vec<u64> = diary.0.lock().unwrap()[before..].to_vec();
    assert!(done.iter().all(|position| *position > 200), "repeated after a clean stop: {done:?}");
    assert_eq!(done.len(), 10);
    third.leave().await;
}
