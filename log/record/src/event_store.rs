//! The seam between the record and everybody who appends to it or reads it.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{
    ChainPoint, EventId, ExecId, FoundBy, Frame, Key, Kind, Position, SandboxId, Subject, TenantId,
};

use crate::{AppendBatch, AppendError, Floor, StoreError};

/// The end of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Head {
    /// The position of the newest event.
    pub position: Position,
    /// The newest message of the transport whose events are in the log: where the recorder goes on from.
    pub stream_sequence: u64,
    /// Which transport stream [`stream_sequence`](Self::stream_sequence) counts in: a stream that was made anew starts
    /// again at 1. Empty until the first append.
    pub incarnation: String,
}

/// Which events a reader wants. An empty filter wants all; what is set must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventFilter {
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// About this sandbox.
    pub sandbox: Option<SandboxId>,
    /// About this exec.
    pub exec: Option<ExecId>,
    /// About this thing, of a kind whose events are [found by their subject](events::FoundBy::Subject).
    pub subject: Option<Subject>,
    /// Of one of these types (`exec.output`); of any type when empty.
    pub types: Vec<String>,
}

impl EventFilter {
    /// The events that make the states of a kind, of all things of it.
    pub fn of_kind(kind: &Kind) -> Self {
        Self { types: kind.types(), ..Self::default() }
    }

    /// The events that make the state of one thing, and perhaps of others of its kind: see [`events::FoundBy`].
    pub fn of_thing(kind: &Kind, key: &Key) -> Self {
        let id = <[u8; 16]>::try_from(key.as_bytes()).unwrap_or_default();
        let all = Self::of_kind(kind);
        match kind.found_by {
            FoundBy::Sandbox => Self { sandbox: Some(SandboxId::from_bytes(id)), ..all },
            FoundBy::Exec => Self { exec: Some(ExecId::from_bytes(id)), ..all },
            FoundBy::Subject => Self { subject: Some(Subject::of(kind.name, key.clone())), ..all },
            FoundBy::Category => all,
        }
    }

    /// Whether it is about one thing, of which there are few events.
    pub const fn is_narrow(&self) -> bool {
        self.sandbox.is_some() || self.exec.is_some() || self.subject.is_some()
    }
}

impl From<EventFilter> for AuditFilter {
    fn from(filter: EventFilter) -> Self {
        let EventFilter { tenant, sandbox, exec, subject, types } = filter;
        Self { tenant, sandbox, exec, subject, types, from: None, to: None }
    }
}

/// Which execs of a sandbox.
#[derive(Debug, Clone, Default)]
pub struct ExecPage {
    /// Only those that were heard of before this one: where the page before it ended.
    pub before: Option<(DateTime<Utc>, ExecId)>,
    /// Only those of which nothing more comes, or the others: those that run, and those that have ended with their output open.
    pub ended: Option<bool>,
    /// At most so many.
    pub limit: u32,
}

/// Which events an auditor wants. An empty filter wants all; what is set must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditFilter {
    /// Of this tenant.
    pub tenant: Option<TenantId>,
    /// About this sandbox.
    pub sandbox: Option<SandboxId>,
    /// About this exec.
    pub exec: Option<ExecId>,
    /// About this thing, of a kind whose events are found by their subject.
    pub subject: Option<Subject>,
    /// Of one of these types; of any type when empty.
    pub types: Vec<String>,
    /// At or after this instant.
    pub from: Option<DateTime<Utc>>,
    /// Before this instant.
    pub to: Option<DateTime<Utc>>,
}

/// An event without its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Where it stands.
    pub position: Position,
    /// Its exact header.
    pub header: Bytes,
    /// How many bytes its body had, if it had one.
    pub body_length: Option<u64>,
}

/// Which events a reader wants, and how.
#[derive(Debug, Clone, Default)]
pub struct EventQuery {
    /// What must hold of them.
    pub filter: AuditFilter,
    /// Only those after this position.
    pub after: Position,
    /// Only those up to and including this position; up to the end, when absent.
    pub up_to: Option<Position>,
    /// From the last one on backwards.
    pub backwards: bool,
    /// With their bodies, where those are kept.
    pub bodies: bool,
    /// An error if events that would have been read were dropped ([`StoreError::Trimmed`]); else they are left out in silence.
    pub whole: bool,
    /// At most so many.
    pub limit: u32,
}

/// An event as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundEvent {
    /// The event. Its body is empty unless it was asked for.
    pub frame: Frame,
    /// How many bytes its body had, if it had one.
    pub body_length: Option<u64>,
}

/// Which rows of the read models. An empty query wants all of the kind that were not deleted; what is set must all hold.
///
/// There are indexes for these: by keys; by tenant, for what has no parent, in the order of keys; by parent, the newest first or
/// those that have not ended; by place, for what has not ended, in the order of keys. Of jobs also: by tenant and status, by tenant
/// and label, in the order of keys; and those of a tenant that are [queued](Self::QUEUED), anywhere or at a place, in the order of their turn.
///
/// Wherever a tenant's are asked for and neither their keys nor their parents, those that are parts of something are left out; but
/// whatever waits for its turn is found.
#[derive(Debug, Clone, Default)]
pub struct RowQuery {
    /// Which kind.
    pub kind: &'static str,
    /// Only these.
    pub keys: Option<Vec<Key>>,
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only parts of these.
    pub parents: Option<Vec<Key>>,
    /// Only what is or waits here.
    pub place: Option<String>,
    /// Only what stands here, in one word.
    pub status: Option<&'static str>,
    /// Only what is counted together with others under this label.
    pub label: Option<String>,
    /// Only what is due at this time or before, in microseconds since 1970, or is due at no time.
    pub due_by_us: Option<i64>,
    /// Only what has ended, or what has not.
    pub ended: Option<bool>,
    /// In which order.
    pub order: Order,
    /// At most so many; all, when absent.
    pub limit: Option<u32>,
}

/// In which order rows come, and after which one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// By their keys, after this one.
    Key(Option<Key>),
    /// By falling keys, below this one.
    FallingKey(Option<Key>),
    /// The newest first: those before this one, by when it was made (in microseconds since 1970) and its key.
    Newest(Option<(i64, Key)>),
    /// The one whose turn is next first: the least rank, then what was due first (what is due at no time counts as due since 1970),
    /// then the least key. After this one.
    Turn(Option<Turn>),
}

/// When it is the turn of a thing among those that wait.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Turn {
    /// Its rank: the least goes first.
    pub rank: i64,
    /// When it was due, in microseconds since 1970; 0 if it is due at no time.
    pub due_us: i64,
    /// Which one it is.
    pub key: Key,
}

impl RowQuery {
    /// The kind and the status of what waits for its turn. The database keeps those in order, and no others.
    pub const QUEUED: (&'static str, &'static str) = ("job", "queued");

    /// What waits for its turn, of a tenant.
    pub fn queued(tenant: TenantId) -> Self {
        let (kind, status) = Self::QUEUED;
        let order = Order::Turn(None);
        Self { kind, tenant: Some(tenant), status: Some(status), order, ..Self::default() }
    }
}

impl Default for Order {
    fn default() -> Self {
        Self::Key(None)
    }
}

/// A row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Its key.
    pub key: Key,
    /// The state as JSON; `None`: it was deleted.
    pub state: Option<String>,
}

/// The event log and its read models. What else belongs to a store has traits of its own; see [`Record`](crate::Record).
///
/// What every implementation owes:
///
/// - **Atomic and durable**: after `append` returns `Ok`, all of the batch survives the loss of power; after an error
///   all of it or (nearly always) nothing is there, and the head tells which. A reader never sees part of a batch, nor
///   read models that are not what the events up to some head make of them.
/// - **Dense**: positions are 1, 2, 3 and so on in the order of commits. An event that a reader can see has no invisible
///   one before it, so a reader may go on from the last position it saw and misses nothing.
/// - **One winner**: of any number of concurrent appends after the same position exactly one succeeds; the others are
///   [`AppendError::Conflict`] and leave no trace.
/// - **Exact**: header and body come back byte for byte, however they are kept.
/// - **Append-only**: the database itself refuses to change or delete events.
/// - **Cancel safe**: dropping a future that has not finished leaves the store usable; a dropped `append` may or may not
///   have happened.
#[async_trait]
pub trait EventStore: std::fmt::Debug + Send + Sync + 'static {
    /// The end of the log.
    async fn head(&self) -> Result<Head, StoreError>;

    /// Adds events and the read models that change with them, in one transaction. The events must have the positions
    /// after `batch.after`, without holes; a batch without events only moves the stream mark.
    async fn append(&self, batch: &AppendBatch) -> Result<(), AppendError>;

    /// Events, in order. Without their body where that is not kept any more.
    async fn events(&self, query: &EventQuery) -> Result<Vec<FoundEvent>, StoreError>;

    /// The first position whose event happened at or after an instant; the one after the head when none has. Events are
    /// in the order of their commits, and their times come from different clocks: near the instant this is off by as
    /// much as those differ.
    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, StoreError>;

    /// The ends of all chains, or of one tenant's, and the head that this is true at.
    async fn chain_ends(&self, tenant: Option<&TenantId>) -> Result<(Position, Vec<ChainPoint>), StoreError>;

    /// Rows of the read models.
    async fn rows(&self, query: &RowQuery) -> Result<Vec<StoredRow>, StoreError>;

    /// All of a kind that have not ended, and the head that this is true at.
    async fn live_rows(&self, kind: &'static str) -> Result<(Position, Vec<StoredRow>), StoreError>;

    /// Which of these events are in the log. Events of output are not found by their id: what is recorded of them is told
    /// by the state of their exec.
    async fn known_ids(&self, ids: &[EventId]) -> Result<Vec<EventId>, StoreError>;

    /// Up to where things were dropped; of a class of which nothing was, nothing.
    async fn floors(&self) -> Result<Vec<Floor>, StoreError>;
}
