use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use events::{
    Actor, AuditEvent, Clock, ErrorChain, Event, EventData, EventId, LogTrimmed, Position, RetentionClass,
    TenantId,
};
use record::{EventFilter, EventStore, Floor, Record, StoreError, Upkeep};
use tokio_util::sync::CancellationToken;
use transport::{Log, PublishError};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(60);
/// Between two droppings, so that what has just been written comes first.
const BREATH: Duration = Duration::from_millis(20);
/// By how much clocks of different machines may differ.
const APART: TimeDelta = TimeDelta::seconds(60);
/// How many checkpoints are looked at in one go.
const CHECKPOINTS: u32 = 16;

/// How long things are kept. `None`: for ever.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// The bytes of output and input.
    pub output: Option<Duration>,
    /// Whole events.
    pub lifecycle: Option<Duration>,
}

/// Where the fact that something is dropped is told, before it is dropped.
#[async_trait]
pub trait Tell: Send + Sync + 'static {
    /// Durable on return.
    async fn tell(&self, event: Event) -> Result<(), PublishError>;

    /// What time others say it is, with the name of each. Those that do not answer are left out.
    async fn clocks(&self) -> Vec<(&'static str, DateTime<Utc>)> {
        Vec::new()
    }
}

/// The transport and the database, who have clocks of their own.
struct Outside {
    log: Log,
    database: Arc<dyn Upkeep>,
}

#[async_trait]
impl Tell for Outside {
    async fn tell(&self, event: Event) -> Result<(), PublishError> {
        self.log.publish(&[event]).await
    }

    async fn clocks(&self) -> Vec<(&'static str, DateTime<Utc>)> {
        let (nats, database) = tokio::join!(self.log.clock(), self.database.clock());
        let database = database.ok().flatten().map(|time| ("the database", time));
        nats.map(|time| ("NATS", time)).into_iter().chain(database).collect()
    }
}

/// Drops what is older than it is to be kept, until `stop`: only what a signed checkpoint speaks of, and only after the log
/// says so. The recorder moves the floor when it records that; what is below the floor goes, bit by bit. While the clocks
/// that there are disagree on what time it is, nothing is dropped.
pub async fn retain(
    log: Log,
    record: Record,
    policy: RetentionPolicy,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let Record { store, upkeep, .. } = record;
    let outside = Outside { log, database: Arc::clone(&upkeep) };
    let retention = Retention { log: Box::new(outside), store, upkeep, policy, clock };
    loop {
        let pass = async {
            if let Err(error) = retention.pass().await {
                tracing::warn!(error = %ErrorChain(&error), "what is old is not dropped yet");
            }
            tokio::time::sleep(EVERY).await;
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = pass => {}
        }
    }
}

/// Why nothing was dropped.
#[derive(Debug, thiserror::Error)]
pub enum RetainError {
    /// The store cannot be read, or drops nothing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log does not take the news.
    #[error("cannot say what is to be dropped")]
    Tell(#[from] PublishError),
}

/// Drops what is old.
pub struct Retention {
    /// Where it is told.
    pub log: Box<dyn Tell>,
    /// What the log says of it.
    pub store: Arc<dyn EventStore>,
    /// What drops it.
    pub upkeep: Arc<dyn Upkeep>,
    /// What is old.
    pub policy: RetentionPolicy,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

impl Retention {
    /// Drops what is below the floors, and says which floors should rise. What is said in one pass is dropped in the next.
    /// Nothing of it while the clocks disagree.
    pub async fn pass(&self) -> Result<(), RetainError> {
        if let Some(disagreement) = self.disagreement().await? {
            tracing::error!(%disagreement, "nothing is dropped: it is not clear what time it is");
            return Ok(());
        }
        for class in [RetentionClass::Output, RetentionClass::Lifecycle] {
            let mut dropped = 0;
            loop {
                let rows = self.upkeep.drop_some(class).await?;
                if rows == 0 {
                    break;
                }
                dropped += rows;
                tokio::time::sleep(BREATH).await;
            }
            if dropped > 0 {
                tracing::info!(retention.class = ?class, retention.rows = dropped, "dropped what was old");
            }
            let kept_for = match class {
                RetentionClass::Output => self.policy.output,
                RetentionClass::Lifecycle => self.policy.lifecycle,
            };
            if let Some(kept_for) = kept_for
                && let Some(floor) = self.next_floor(class, kept_for).await?
            {
                self.log.tell(self.trimmed(floor)).await?;
            }
        }
        Ok(())
    }

    /// What clocks disagree, in words.
    async fn disagreement(&self) -> Result<Option<String>, StoreError> {
        if let Some(ahead) = self.clock.doubt() {
            return Ok(Some(format!("this machine's clock jumped by {} s", ahead.num_seconds())));
        }
        let newest = self.newest_event_at().await?;
        let others = self.log.clocks().await;
        let now = self.clock.now();
        for (whose, time) in others {
            let ahead = time - now;
            if ahead.abs() > APART {
                return Ok(Some(format!("the clock of {whose} is {} s ahead of ours", ahead.num_seconds())));
            }
        }
        let future = newest.map(|newest| newest - now).filter(|ahead| *ahead > APART);
        Ok(future.map(|ahead| format!("the newest event is of a time {} s ahead", ahead.num_seconds())))
    }

    async fn newest_event_at(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        let head = self.store.head().await?.position;
        let before = Position(head.0.saturating_sub(1));
        match self.store.read_headers(&EventFilter::default(), before, 1).await {
            Ok(frames) => Ok(frames.first().and_then(|frame| frame.decode().ok()).map(|event| event.time)),
            Err(StoreError::Trimmed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Up to where a class may be dropped now, if that is further than it was.
    async fn next_floor(
        &self,
        class: RetentionClass,
        kept_for: Duration,
    ) -> Result<Option<Floor>, StoreError> {
        let kept_for = TimeDelta::from_std(kept_for).unwrap_or(TimeDelta::MAX);
        let Some(oldest) = self.clock.now().checked_sub_signed(kept_for) else {
            return Ok(None);
        };
        let mut up_to = self.store.position_at(oldest).await?.0.saturating_sub(1);
        if class == RetentionClass::Lifecycle
            && let Some(first) = self.upkeep.first_live().await?
        {
            // What lives keeps its history.
            up_to = up_to.min(first.0.saturating_sub(1));
        }
        let floors = self.store.floors().await?;
        let floor = floors.iter().find(|floor| floor.class == class).map_or(0, |floor| floor.up_to.0);
        if up_to <= floor {
            return Ok(None);
        }
        self.checkpointed(class, Position(floor), Position(up_to)).await
    }

    /// The floor at a wanted position, with the first checkpoint that speaks of all up to there. Where there is none yet,
    /// as far as the newest one goes.
    async fn checkpointed(
        &self,
        class: RetentionClass,
        floor: Position,
        wanted: Position,
    ) -> Result<Option<Floor>, StoreError> {
        let mut best = None;
        // A checkpoint stands after all that it speaks of.
        let mut after = floor;
        loop {
            let frames = self.store.checkpoints_after(after, CHECKPOINTS).await?;
            let Some(last) = frames.last() else { return Ok(best) };
            after = last.position;
            for event in frames.iter().filter_map(|frame| frame.decode().ok()) {
                let EventData::Audit(AuditEvent::Checkpoint(checkpoint)) = &event.data else { continue };
                let up_to = checkpoint.statement.up_to.min(wanted);
                if up_to > floor {
                    best = Some(Floor { class, up_to, checkpoint: event.id });
                }
                if up_to == wanted {
                    return Ok(best);
                }
            }
        }
    }

    fn trimmed(&self, Floor { class, up_to, checkpoint }: Floor) -> Event {
        Event {
            id: EventId::new(),
            tenant: TenantId::system(),
            sandbox: None,
            time: self.clock.now(),
            actor: Actor::Recorder,
            cause: None,
            request_id: None,
            traceparent: None,
            data: LogTrimmed { class, up_to, checkpoint }.into(),
        }
    }
}
