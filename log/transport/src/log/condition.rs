//! Whether the transport takes what is published.
//!
//! A connection that stands proves nothing: a server whose disk was full keeps its streams dead after there is room again
//! and answers no publish until it is started anew, while it answers everything else. So who publishes says what came of
//! it; when an answer is overdue somebody looks closer, publishes probes, and asks the server about its streams. Until a
//! probe is acknowledged, publishers are refused at once instead of being kept waiting.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::{self, ErrorCode, context};
use bytes::Bytes;
use events::Subjects;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Log;
use super::source::PROBE;

/// How long an acknowledgement may take before somebody looks closer.
pub(super) const OVERDUE: Duration = Duration::from_millis(700);
/// How long a publisher waits for a server where there is none: long enough for one to be started again.
const OUTAGE: Duration = Duration::from_secs(6);
/// Between two looks while something is wrong.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Between two looks while nothing is known to be wrong: of a process that publishes nothing, too.
const IDLE: Duration = Duration::from_secs(10);
/// How often in a row nothing must have been written, a second each, before that counts as broken: a disk may pause. A leader
/// that a cluster has just elected has to find its followers first.
const UNWRITTEN: u32 = 2;
const UNWRITTEN_IN_CLUSTER: u32 = 5;
/// How often what is wrong is said again.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Which of the streams on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    Events,
    Commands,
}

/// What is wrong with the transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportTrouble {
    /// No server answers at all.
    Unreachable,
    /// A server answers, but nothing is acknowledged: the stream changes its leader, has lost too many copies, or the disk
    /// pauses.
    Leaderless,
    /// The server answers that JetStream is off.
    Off,
    /// The server answers, and takes no writes: after its disk was full, broken or read-only. It stays like that until it is
    /// started anew.
    Stuck,
}

impl TransportTrouble {
    /// A stable name.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unreachable => "transport_unreachable",
            Self::Leaderless => "transport_leaderless",
            Self::Off => "transport_off",
            Self::Stuck => "transport_full",
        }
    }

    /// Whether waiting does not help: somebody has to do something to the server.
    const fn is_refusal(self) -> bool {
        match self {
            Self::Off | Self::Stuck => true,
            Self::Unreachable | Self::Leaderless => false,
        }
    }

    const ALL: [Self; 4] = [Self::Unreachable, Self::Leaderless, Self::Off, Self::Stuck];
}

impl fmt::Display for TransportTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "NATS cannot be reached",
            Self::Leaderless => "NATS answers, but does not acknowledge at the moment",
            Self::Off => "NATS answers that JetStream is off",
            Self::Stuck => "NATS takes no writes: the disk of its store is or was full, read-only or broken",
        })
    }
}

/// What this process knows of the transport. Shared by all its connections.
pub(super) struct Condition {
    trouble: watch::Sender<Option<TransportTrouble>>,
    /// The same for the fast path: 0 is well.
    code: AtomicU8,
    /// Since when a command waits for its acknowledgement in vain.
    commands_overdue: Mutex<Option<Instant>>,
    suspicious: AtomicBool,
    wake: Notify,
    /// When the trouble began, or ended.
    changed_at: Mutex<Instant>,
    /// When something was last acknowledged.
    proven_at: Mutex<Instant>,
    watching: Mutex<Option<DropGuard>>,
}

impl Default for Condition {
    fn default() -> Self {
        Self {
            trouble: watch::Sender::new(None),
            code: AtomicU8::new(0),
            commands_overdue: Mutex::new(None),
            suspicious: AtomicBool::new(false),
            wake: Notify::new(),
            changed_at: Mutex::new(Instant::now()),
            proven_at: Mutex::new(Instant::now()),
            watching: Mutex::new(None),
        }
    }
}

impl Condition {
    pub fn trouble(&self) -> Option<TransportTrouble> {
        let code = self.code.load(Ordering::Acquire);
        TransportTrouble::ALL.get(usize::from(code).checked_sub(1)?).copied()
    }

    /// Why a publish is not worth a try.
    pub fn refusal(&self) -> Option<TransportTrouble> {
        self.trouble().filter(|trouble| trouble.is_refusal())
    }

    /// Whether there has been no server for so long that nobody should wait for one.
    pub fn is_deserted(&self, patience: Duration) -> bool {
        let since = *self.changed_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.trouble() == Some(TransportTrouble::Unreachable) && since.elapsed() >= patience
    }

    /// Waits until it is not worth waiting for an acknowledgement any more.
    pub async fn refused(&self) -> TransportTrouble {
        let mut trouble = self.trouble.subscribe();
        loop {
            if let Some(refusal) = *trouble.borrow_and_update()
                && refusal.is_refusal()
            {
                return refusal;
            }
            if trouble.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Something was acknowledged.
    pub fn acknowledged(&self, queue: Queue) {
        if !self.suspicious.load(Ordering::Acquire) {
            return;
        }
        if queue == Queue::Commands {
            *self.commands_overdue.lock().unwrap_or_else(PoisonError::into_inner) = None;
            self.wake.notify_one();
        }
    }

    /// Something was sent and is not acknowledged, though it should be by now.
    pub fn overdue(&self, queue: Queue) {
        if queue == Queue::Commands {
            self.commands_overdue
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(Instant::now);
        }
        self.suspicious.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    fn commands_overdue(&self) -> bool {
        self.commands_overdue.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn set(&self, trouble: Option<TransportTrouble>) {
        let code = trouble.and_then(|it| TransportTrouble::ALL.iter().position(|one| *one == it));
        self.code.store(code.map_or(0, |index| index as u8 + 1), Ordering::Release);
        let changed = self.trouble.send_if_modified(|known| std::mem::replace(known, trouble) != trouble);
        if changed {
            *self.changed_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }
}

impl Log {
    /// Why a request that has to be published is not worth a try.
    pub fn refusal(&self) -> Option<TransportTrouble> {
        if self.is_connected() {
            return self.condition.refusal();
        }
        self.condition.is_deserted(OUTAGE).then_some(TransportTrouble::Unreachable)
    }

    /// What is wrong with the transport, as far as this process has noticed.
    pub fn trouble(&self) -> Option<TransportTrouble> {
        if self.is_connected() { self.condition.trouble() } else { Some(TransportTrouble::Unreachable) }
    }

    /// When the transport last proved that it takes writes.
    pub fn proven_at(&self) -> Instant {
        *self.condition.proven_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while it is known that publishing is of no use, but no longer than `patience`.
    pub async fn until_writable(&self, patience: Duration) {
        let mut trouble = self.condition.trouble.subscribe();
        let writable = trouble.wait_for(|trouble| trouble.is_none_or(|trouble| !trouble.is_refusal()));
        let _ = timeout(patience, writable).await;
    }

    /// Watches the transport until the last clone of this log is dropped.
    pub(super) fn watch(&self) {
        let stop = CancellationToken::new();
        *self.condition.watching.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(stop.clone().drop_guard());
        let watcher = Watcher {
            client: self.client.clone(),
            subjects: self.subjects.clone(),
            jetstream: context::ContextBuilder::new()
                .timeout(OVERDUE)
                .ack_timeout(OVERDUE)
                .build(self.client.clone()),
            supervised: self.config.supervised,
            said: None,
            unwritten: 0,
        };
        // It must not keep alive what its own end depends on.
        let condition = Arc::downgrade(&self.condition);
        tokio::spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = watcher.run(condition) => {}
            }
        });
    }
}

struct Watcher {
    client: async_nats::Client,
    subjects: Subjects,
    jetstream: jetstream::Context,
    supervised: bool,
    said: Option<(TransportTrouble, Instant)>,
    /// How often in a row it looked as if nothing was written.
    unwritten: u32,
}

impl Watcher {
    async fn run(mut self, condition: Weak<Condition>) {
        // The streams have just been made or found: a first look can wait.
        if let Some(known) = condition.upgrade() {
            let _ = timeout(IDLE, known.wake.notified()).await;
        }
        loop {
            let Some(known) = condition.upgrade() else { return };
            let mut trouble = self.look().await;
            if trouble != Some(TransportTrouble::Leaderless) && trouble != Some(TransportTrouble::Stuck) {
                self.unwritten = 0;
            }
            if trouble.is_none() {
                *known.proven_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                if known.commands_overdue() {
                    let stream = self.subjects.commands_stream();
                    trouble = self.trouble_of(&stream).await;
                }
            }
            self.say(trouble);
            known.set(trouble);
            let wake = &known.wake;
            if trouble.is_some() {
                let _ = timeout(LOOK_AGAIN, wake.notified()).await;
                sleep(LOOK_AGAIN / 5).await;
            } else {
                known.suspicious.store(false, Ordering::Release);
                let _ = timeout(IDLE, wake.notified()).await;
            }
        }
    }

    /// Publishes a probe. When it is not acknowledged: why.
    async fn look(&mut self) -> Option<TransportTrouble> {
        if !matches!(self.client.connection_state(), async_nats::connection::State::Connected) {
            return Some(TransportTrouble::Unreachable);
        }
        let mut headers = HeaderMap::new();
        headers.insert(PROBE, "-");
        let sent = async {
            let sent = self.jetstream.publish_with_headers(self.subjects.probe(), headers, Bytes::new());
            sent.await?.await
        };
        let events = self.subjects.events_stream();
        let published = timeout(OVERDUE, sent).await;
        match published {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => match answer_of(&error) {
                Some(answer) => trouble_of(answer),
                None => self.trouble_of(&events).await,
            },
            Err(_) => self.trouble_of(&events).await,
        }
    }

    /// Asks after a stream that does not acknowledge.
    async fn trouble_of(&mut self, stream: &str) -> Option<TransportTrouble> {
        if !matches!(self.client.connection_state(), async_nats::connection::State::Connected) {
            return Some(TransportTrouble::Unreachable);
        }
        let subject = format!("STREAM.INFO.{stream}");
        let request = self.jetstream.request::<_, _, Response<serde_json::Value>>(subject, &());
        let Ok(answer) = timeout(OVERDUE, request).await else {
            return Some(TransportTrouble::Leaderless);
        };
        Some(match answer {
            Ok(Response::Ok(info)) => {
                let leader = info.pointer("/cluster/leader").is_none_or(|leader| leader.as_str() != Some(""));
                // Of a cluster whose leader is not known the field is left out.
                let unknown = info.get("cluster").is_some_and(|cluster| cluster.get("leader").is_none());
                self.unwritten += 1;
                let enough = if info.get("cluster").is_some() { UNWRITTEN_IN_CLUSTER } else { UNWRITTEN };
                if leader && !unknown && self.unwritten >= enough {
                    TransportTrouble::Stuck
                } else {
                    TransportTrouble::Leaderless
                }
            }
            Ok(Response::Err { error }) => return trouble_of(&error),
            Err(error) if error.kind() == context::RequestErrorKind::NoResponders => TransportTrouble::Off,
            Err(_) => TransportTrouble::Leaderless,
        })
    }

    /// Says what is wrong once, and again now and then.
    fn say(&mut self, trouble: Option<TransportTrouble>) {
        let Some(trouble) = trouble else {
            if self.said.take().is_some() {
                tracing::info!("the transport takes writes again");
            }
            return;
        };
        if self.said.is_some_and(|(said, at)| said == trouble && at.elapsed() < SAY_AGAIN) {
            return;
        }
        self.said = Some((trouble, Instant::now()));
        if !trouble.is_refusal() {
            tracing::warn!(reason = trouble.code(), "{trouble}");
        } else if self.supervised {
            tracing::error!(
                reason = trouble.code(),
                "{trouble}; nats-server is started again as soon as its directory can be written"
            );
        } else {
            tracing::error!(
                reason = trouble.code(),
                nats.server = %self.client.server_info().server_name,
                "{trouble}. Make room in the store_dir of its jetstream (or make it writable), then restart that \
                 nats-server: it does not recover by itself. Nothing that was acknowledged is lost by that"
            );
        }
    }
}

/// What the server said, where it said something about a publish.
pub(super) fn answer_of(error: &context::PublishError) -> Option<&jetstream::Error> {
    std::error::Error::source(error)?.downcast_ref()
}

/// Whether it says that the stream is as full as it may get: then it is looked after, and the recorder or the executors are
/// behind.
pub(super) fn is_limit(answer: &jetstream::Error) -> bool {
    answer.error_code() == ErrorCode::STREAM_STORE_FAILED
        && answer.to_string().contains("maximum bytes exceeded")
}

/// What is wrong with a server that says this.
pub(super) fn trouble_of(answer: &jetstream::Error) -> Option<TransportTrouble> {
    match answer.error_code() {
        _ if is_limit(answer) => None,
        ErrorCode::STREAM_STORE_FAILED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED => Some(TransportTrouble::Stuck),
        ErrorCode::JETSTREAM_NOT_ENABLED | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT => {
            Some(TransportTrouble::Off)
        }
        // It is made again by whoever publishes or reads next.
        _ => Some(TransportTrouble::Leaderless),
    }
}
