//! Makes checkpoints, beside the recorder.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, Utc};
use events::{
    Actor, AuditCheckpoint, AuditEvent, ChainHash, CheckpointStatement, Clock, ErrorChain, Event, EventData,
    EventId, Frame, LogRestored, Position, TenantId,
};
use record::{AuditFilter, AuditRow, EventStore, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::{Log, PublishError};

use super::checkpoint_file::{CheckpointFile, CheckpointFileError, FileStatement, read_statements};
use super::keys::AuditKey;
use super::restored::{event_id, key_changed};
use super::statement::Signable;

/// How often it is looked whether a checkpoint is due.
const LOOK: Duration = Duration::from_secs(1);
/// The same, while there is none at all.
const SOON: Duration = Duration::from_millis(100);
/// How many chains one statement tells of at most, so that it fits into one message. More need more statements.
const MOST_CHAINS: usize = 4_000;
/// So many checkpoints may follow each other with nothing in between before one more is made.
const LONE: u32 = 8;
/// How long the last checkpoint may take at the end.
const LAST: Duration = Duration::from_secs(3);

/// How checkpoints are made.
#[derive(Debug, Clone)]
pub struct CheckpointConfig {
    /// What signs them.
    pub key: AuditKey,
    /// What signed before, where it is at hand: it vouches for the key that signs now.
    pub previous_key: Option<AuditKey>,
    /// Where they are written, outside the database.
    pub file: PathBuf,
    /// After how many events one is made.
    pub events: u64,
    /// After how long one is made, if anything was recorded.
    pub interval: Duration,
}

/// Why no checkpoint was made. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The chains could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It could not be published.
    #[error("cannot publish a checkpoint")]
    Publish(#[from] PublishError),
    /// It could not be written.
    #[error(transparent)]
    File(#[from] CheckpointFileError),
}

/// Makes checkpoints. Several may be at work on one log: each statement refers to the newest one that its maker knew, so
/// the chain of statements may fork, which does no harm: a statement says what the log was, whoever else says so too.
pub struct Checkpointer {
    log: Log,
    store: Arc<dyn EventStore>,
    clock: Arc<dyn Clock>,
    config: CheckpointConfig,
    file: CheckpointFile,
    /// The newest one that is known: up to where it speaks, and its hash.
    newest: (Position, ChainHash),
    /// When it was last seen that there is nothing to do, or something was done.
    done: Instant,
}

impl Checkpointer {
    /// One that goes on from what is recorded.
    pub fn open(
        log: &Log,
        store: Arc<dyn EventStore>,
        clock: Arc<dyn Clock>,
        config: CheckpointConfig,
    ) -> Self {
        let file = CheckpointFile::at(&config.file);
        let newest = (Position::ZERO, ChainHash::GENESIS);
        Self { log: log.clone(), store, clock, config, file, newest, done: Instant::now() }
    }

    /// Makes checkpoints until `stop`, and a last one then.
    pub async fn run(mut self, stop: CancellationToken) {
        tracing::info!(key.id = %self.config.key.public().id(), file = %self.config.file.display(), "checkpoints are signed");
        self.compare().await;
        let mut stated = match self.state().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "what the log is to say of itself is said later");
                false
            }
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(if self.newest.0 == Position::ZERO { SOON } else { LOOK }) => {}
            }
            let looked = async {
                if !stated {
                    self.state().await?;
                    stated = true;
                }
                self.look().await
            };
            match looked.await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(error = %ErrorChain(&error), "no checkpoint was made; trying again");
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        let last = async {
            if !stated {
                self.state().await?;
            }
            self.last().await
        };
        match tokio::time::timeout(LAST, last).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %ErrorChain(&error), "no last checkpoint was made"),
            Err(_) => tracing::warn!("no last checkpoint was made in time"),
        }
    }

    /// Whoever restarts on a database that lost its end should hear of it, not only whoever verifies.
    async fn compare(&self) {
        let (Ok(statements), Ok(head)) = (read_statements(&self.config.file), self.store.head().await) else {
            return;
        };
        let mut stated = None;
        for (_, statement) in statements.filter_map(Result::ok) {
            stated = match statement {
                FileStatement::Checkpoint(checkpoint) => stated.max(Some(checkpoint.statement.up_to)),
                FileStatement::Restored(restored) => stated.min(Some(restored.statement.up_to)),
            };
        }
        if let Some(stated) = stated.filter(|stated| *stated > head.position) {
            tracing::error!(
                head = %head.position,
                stated = %stated,
                "the log ends before what the checkpoint file speaks of: it was cut off, or this is another database"
            );
        }
    }

    /// Says in the log what it does not know of itself: that a copy took its place, and that another key signs from now on.
    async fn state(&self) -> Result<(), CheckpointError> {
        let restored: Vec<LogRestored> = match read_statements(&self.config.file) {
            Ok(statements) => statements
                .filter_map(Result::ok)
                .filter_map(|(_, statement)| match statement {
                    FileStatement::Restored(restored) => Some(restored),
                    FileStatement::Checkpoint(_) => None,
                })
                .collect(),
            // None was written yet.
            Err(_) => Vec::new(),
        };
        for restored in restored {
            let id = event_id(&restored.statement);
            self.publish_once(id, restored).await?;
        }
        let head = self.store.head().await?.position;
        let ours = self.config.key.public();
        let newest = newest_checkpoint(&*self.store, Position::ZERO, head).await?;
        if let Some(newest) = newest.filter(|newest| newest.key_id != ours.id()) {
            let before = self.config.previous_key.as_ref();
            let from = newest.key_id;
            let changed = key_changed(&self.config.key, from, before, self.clock.now());
            tracing::warn!(
                key.id = %ours.id(),
                key.before = %changed.from,
                vouched = changed.signature.is_some(),
                "another key signs this log from now on: verification needs both public keys, or the word of the first for \
                 the second"
            );
            let of = newest.statement.up_to.to_string();
            let id = EventId::derived(&["audit.key_changed", &changed.from, &changed.to, &of]);
            self.publish_once(id, changed).await?;
        }
        Ok(())
    }

    async fn publish_once(&self, id: EventId, data: impl Into<EventData>) -> Result<(), CheckpointError> {
        if !self.store.known_ids(&[id]).await?.is_empty() {
            return Ok(());
        }
        Ok(self.log.publish(&[self.event(id, self.clock.now(), data)]).await?)
    }

    fn event(&self, id: EventId, time: DateTime<Utc>, data: impl Into<EventData>) -> Event {
        Event {
            id,
            tenant: TenantId::system(),
            sandbox: None,
            time,
            actor: Actor::Recorder,
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        }
    }

    async fn look(&mut self) -> Result<(), CheckpointError> {
        let head = self.store.head().await?.position;
        let many = head.0.saturating_sub(self.newest.0.0) >= self.config.events;
        // The first one of a log is due at once: until there is one, nobody could tell whose log it is.
        let first = self.newest.0 == Position::ZERO;
        if head <= self.newest.0 || !(many || first || self.done.elapsed() >= self.config.interval) {
            return Ok(());
        }
        self.learn(head).await?;
        let many = head.0.saturating_sub(self.newest.0.0) >= self.config.events;
        // Another recorder may just have made one.
        let old = self.newest.0 == Position::ZERO || self.done.elapsed() >= self.config.interval;
        if (many || old) && self.something_happened(head).await? {
            self.make().await?;
        }
        self.done = Instant::now();
        Ok(())
    }

    /// The last one, of everything that is recorded by now. Returns when it is recorded itself.
    async fn last(&mut self) -> Result<(), CheckpointError> {
        let head = self.store.head().await?.position;
        self.learn(head).await?;
        if !self.something_happened(head).await? {
            return Ok(());
        }
        for id in self.make().await? {
            while self.store.known_ids(&[id]).await?.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// The newest checkpoint that is recorded may be somebody else's.
    async fn learn(&mut self, head: Position) -> Result<(), CheckpointError> {
        let found = newest_checkpoint(&*self.store, self.newest.0, head).await?;
        if let Some(checkpoint) = found
            && checkpoint.statement.up_to > self.newest.0
        {
            self.newest = (checkpoint.statement.up_to, checkpoint.statement.digest());
        }
        Ok(())
    }

    /// Whether there is more after the newest checkpoint than checkpoints.
    async fn something_happened(&self, head: Position) -> Result<bool, StoreError> {
        let after = self.newest.0;
        if head.0.saturating_sub(after.0) > u64::from(LONE) {
            return Ok(true);
        }
        let rows = self.store.read_audit(&AuditFilter::default(), after, head, false, LONE).await?;
        Ok(rows.into_iter().any(|row| checkpoint_of(row).is_none()))
    }

    async fn make(&mut self) -> Result<Vec<EventId>, CheckpointError> {
        let (head, points) = self.store.chain_points().await?;
        let changed: Vec<_> = points.into_iter().filter(|point| point.position > self.newest.0).collect();
        let mut made = Vec::new();
        for chains in changed.chunks(MOST_CHAINS) {
            let now = self.clock.now();
            let statement = CheckpointStatement {
                up_to: head,
                at: now.trunc_subsecs(6),
                chains: chains.to_vec(),
                previous: self.newest.1,
            };
            let hash = statement.digest();
            let checkpoint = statement.sign(&self.config.key);
            // The file first: it is to know of everything that the log knows of.
            self.file.append(&checkpoint)?;
            let id = EventId::new();
            self.log.publish(&[self.event(id, now, checkpoint)]).await?;
            self.newest.1 = hash;
            made.push(id);
        }
        self.newest.0 = head;
        tracing::debug!(up_to = %head, "checkpoint");
        Ok(made)
    }
}

/// The newest checkpoint that is recorded after a position.
async fn newest_checkpoint(
    store: &dyn EventStore,
    after: Position,
    head: Position,
) -> Result<Option<AuditCheckpoint>, StoreError> {
    let filter = AuditFilter {
        tenant: Some(TenantId::system()),
        types: vec!["audit.checkpoint".to_owned()],
        ..AuditFilter::default()
    };
    let rows = store.read_audit(&filter, after, head, true, 1).await?;
    Ok(rows.into_iter().find_map(checkpoint_of))
}

fn checkpoint_of(row: AuditRow) -> Option<AuditCheckpoint> {
    let frame =
        Frame { position: row.position, header: row.header, body: bytes::Bytes::new(), missing: None };
    match frame.decode() {
        Ok(Event { data: EventData::Audit(AuditEvent::Checkpoint(checkpoint)), .. }) => Some(checkpoint),
        Ok(_) | Err(_) => None,
    }
}
