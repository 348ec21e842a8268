//! The feed: recorded events, live, in order, without holes.
//!
//! The recorder announces each batch after its commit, on core NATS, with positions. A process has one [`Feed`], which
//! notices a hole by the positions and fills it from the store, and any number of [`FeedReader`]s. A reader that falls
//! behind loses nothing: it reads on from the store until it has caught up. So what is shown live is what is recorded,
//! and a slow reader costs a bounded amount of memory.

mod event_reader;
mod log_reader;
mod output;
mod reader;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use tokio::sync::broadcast;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use event_reader::EventReader;
pub use log_reader::LogReader;
pub use output::{OutputItem, OutputReader};
pub use reader::{After, FeedError, FeedReader};

use events::{Event, ExecId, Frame, JobId, JobState, Kind, Position, SandboxId};
use record::{EventFilter, EventStore, Record, StoreError};
use transport::{Announcement, Announcements, Log, ProbeFailure, RecorderLag};

/// How many events a reader may be behind before it reads from the store.
const RING: usize = 128;
/// How many events are read from the store at once.
const PAGE: u32 = 128;

/// The recorder speaks every second. What is within this is not silence.
const SILENCE: Duration = Duration::from_millis(2_500);

/// What the recorder says after each commit. It may be lost; what comes, comes in order.
pub(crate) trait Voice: Send + 'static {
    /// The next announcement; `None` when there will be none any more. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<Announcement>> + Send;
}

impl Voice for Announcements {
    fn next(&mut self) -> impl Future<Output = Option<Announcement>> + Send {
        Self::next(self)
    }
}

/// Why the recorder cannot record.
#[derive(Debug, Clone, Copy)]
pub struct RecorderTrouble {
    /// What the database does.
    pub failure: ProbeFailure,
    /// Since when this has been so.
    pub since: Instant,
}

/// A recorded event.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// Its exact bytes, and its position.
    pub frame: Frame,
    /// What they say.
    pub event: Event,
}

impl Recorded {
    /// Where it stands in the log.
    pub const fn position(&self) -> Position {
        self.frame.position
    }

    pub(crate) fn decode(frame: Frame) -> Option<Self> {
        match frame.decode() {
            Ok(event) => Some(Self { frame, event }),
            Err(error) => {
                // An event of a newer build: it is in the record, this build cannot show it.
                tracing::warn!(error = %error, event.position = %frame.position, "an event cannot be read");
                None
            }
        }
    }
}

/// What a reader wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Everything.
    All,
    /// One sandbox and all that happens in it.
    Sandbox(SandboxId),
    /// One exec.
    Exec(ExecId),
    /// One job: what happens to it, and not what happens in its sandboxes.
    Job(JobId),
}

impl Topic {
    fn filter(self) -> EventFilter {
        match self {
            Self::All => EventFilter::default(),
            Self::Sandbox(id) => EventFilter { sandbox: Some(id), ..EventFilter::default() },
            Self::Exec(id) => EventFilter { exec: Some(id), ..EventFilter::default() },
            Self::Job(id) => EventFilter::of_thing(&Kind::of::<JobState>(), &id.into()),
        }
    }
}

/// The feed of this process. Cheap to clone.
#[derive(Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

struct Inner {
    record: Record,
    head: AtomicU64,
    /// When the recorder was last heard.
    heard: Mutex<Instant>,
    /// How far it was behind then, as far as it has said.
    lag: Mutex<RecorderLag>,
    /// Why nothing can be recorded, as it said last.
    trouble: Mutex<Option<RecorderTrouble>>,
    topics: DashMap<Topic, broadcast::Sender<Arc<Recorded>>>,
    _task: tokio_util::sync::DropGuard,
}

impl Feed {
    /// Follows the log from its present end on.
    pub async fn start(log: &Log, record: Record) -> Result<Self, FeedError> {
        // Listening comes before the head is read, so that nothing falls between the two.
        let announcements = log.announcements().await.map_err(|_| FeedError::Disconnected)?;
        Self::follow(announcements, record).await
    }

    /// Follows a voice that is listened to already.
    pub(crate) async fn follow(mut voice: impl Voice, record: Record) -> Result<Self, FeedError> {
        let head = record.head().await?.position;
        let stop = CancellationToken::new();
        let feed = Self {
            inner: Arc::new(Inner {
                record,
                head: AtomicU64::new(head.0),
                heard: Mutex::new(Instant::now()),
                lag: Mutex::new(RecorderLag::default()),
                trouble: Mutex::new(None),
                topics: DashMap::new(),
                _task: stop.clone().drop_guard(),
            }),
        };
        // The task holds no strong reference, so that dropping the last Feed ends it.
        let weak = Arc::downgrade(&feed.inner);
        tokio::spawn(async move {
            loop {
                let said = tokio::select! {
                    () = stop.cancelled() => return,
                    said = voice.next() => said,
                };
                let (Some(said), Some(inner)) = (said, weak.upgrade()) else {
                    return;
                };
                inner.take(said).await;
            }
        });
        Ok(feed)
    }

    /// The position of the newest event that readers have been given.
    pub fn head(&self) -> Position {
        Position(self.inner.head.load(Ordering::Acquire))
    }

    /// How long the recorder has said nothing. It speaks every second, also while nothing happens: after a few seconds
    /// nothing is being recorded.
    pub fn silent_for(&self) -> Duration {
        self.inner.heard.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// How far the recorder is behind: what it said last, and how long ago if that is longer than it is ever silent.
    pub fn recorder_lag(&self) -> RecorderLag {
        let said = *self.inner.lag.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = self.silent_for();
        if silent < SILENCE {
            return said;
        }
        RecorderLag { age: said.age.saturating_add(silent), ..said }
    }

    /// Why nothing can be recorded, if the recorder says so.
    pub fn recorder_trouble(&self) -> Option<RecorderTrouble> {
        *self.inner.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store that holes are filled from.
    pub fn store(&self) -> &Arc<dyn EventStore> {
        &self.inner.record.store
    }

    /// All that is recorded, as bytes and as evidence too.
    pub fn record(&self) -> &Record {
        &self.inner.record
    }

    /// A reader of one topic.
    pub fn subscribe(&self, topic: Topic, after: After) -> FeedReader {
        FeedReader::new(self.clone(), topic, after)
    }

    /// A reader of stored bytes: of what matches, after a position.
    pub fn log_reader(&self, filter: EventFilter, bodies: bool, after: Position) -> LogReader {
        LogReader::new(self.clone(), filter, bodies, after)
    }

    /// A reader of the events of these types (of all, if none is named), after a position.
    pub fn event_reader(&self, types: &[&'static str], after: Position) -> EventReader {
        EventReader::new(self.clone(), types, after)
    }

    /// A reader of the output of one exec, from these byte offsets on, and then of its end.
    pub async fn exec_output(
        &self,
        exec: ExecId,
        stdout: u64,
        stderr: u64,
    ) -> Result<OutputReader, FeedError> {
        OutputReader::open(self, exec, stdout, stderr).await
    }

    fn listen(&self, topic: Topic) -> broadcast::Receiver<Arc<Recorded>> {
        self.inner.topics.entry(topic).or_insert_with(|| broadcast::Sender::new(RING)).subscribe()
    }

    fn forget_if_unheard(&self, topic: Topic) {
        self.inner.topics.remove_if(&topic, |_, sender| sender.receiver_count() == 0);
    }
}

impl Inner {
    async fn take(&self, said: Announcement) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let frames = match said {
            Announcement::Head(head, lag) => {
                self.note(lag);
                // Sent after every batch on the same connection: being ahead of us means that a batch was lost.
                self.fill_up_to(head).await;
                return;
            }
            Announcement::Events(Ok(frames)) => frames,
            Announcement::Events(Err(error)) => {
                tracing::error!(error = %error, "an announcement cannot be read");
                return;
            }
        };
        for frame in frames {
            let next = Position(self.head.load(Ordering::Acquire)).next();
            if frame.position > next {
                self.fill_up_to(Position(frame.position.0 - 1)).await;
            }
            self.give(frame);
        }
    }

    fn note(&self, lag: RecorderLag) {
        *self.lag.lock().unwrap_or_else(PoisonError::into_inner) = lag;
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let since = trouble.map_or_else(Instant::now, |trouble| trouble.since);
        *trouble = lag.trouble.map(|failure| RecorderTrouble { failure, since });
    }

    async fn fill_up_to(&self, goal: Position) {
        loop {
            let head = Position(self.head.load(Ordering::Acquire));
            if head >= goal {
                return;
            }
            let limit = u32::try_from(goal.0 - head.0).unwrap_or(PAGE).min(PAGE);
            match self.record.read(&EventFilter::default(), head, limit).await {
                Ok(frames) if frames.is_empty() => {
                    tracing::warn!(head = %head, goal = %goal, "announced events are not in the store");
                    return;
                }
                Ok(frames) => frames.into_iter().for_each(|frame| self.give(frame)),
                Err(error) => {
                    tracing::warn!(error = %error, "cannot fill a hole in the feed; trying again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    fn give(&self, frame: Frame) {
        // A batch that was partly filled in from the store arrives again in part.
        if frame.position.0 <= self.head.load(Ordering::Acquire) {
            return;
        }
        // Before it is given: a reader that begins to listen in between must see that it missed this one.
        self.head.store(frame.position.0, Ordering::Release);
        if let Some(recorded) = Recorded::decode(frame) {
            let recorded = Arc::new(recorded);
            self.send(Topic::All, &recorded);
            if let Some(sandbox) = recorded.event.sandbox {
                self.send(Topic::Sandbox(sandbox), &recorded);
            }
            if let Some(exec) = recorded.event.data.exec() {
                self.send(Topic::Exec(exec), &recorded);
            }
            if let Some(job) = recorded.event.data.job() {
                self.send(Topic::Job(job), &recorded);
            }
        }
    }

    fn send(&self, topic: Topic, recorded: &Arc<Recorded>) {
        if let Some(sender) = self.topics.get(&topic) {
            // Nobody listening is not an error.
            let _ = sender.send(Arc::clone(recorded));
        }
    }
}

impl From<StoreError> for FeedError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
#[path = "../feed_tests.rs"]
pub(crate) mod tests;
