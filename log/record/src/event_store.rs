//! The seam between the record and everybody who appends to it or reads it.

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{
    ChainHash, ChainPoint, EventId, ExecId, Frame, Key, Kind, OutputStream, Position, RetentionClass,
    SandboxId, TenantId,
};

use crate::{AppendBatch, AppendError, Floor, StoreError, StoredBody};

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
    /// Of one of these types (`exec.output`); of any type when empty.
    pub types: Vec<String>,
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

/// A piece of the output of an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Where its first byte stands in the stream.
    pub offset: u64,
    /// The bytes. Never empty.
    pub bytes: Bytes,
    /// The event that it is from.
    pub position: Position,
}

/// The key of the sealed bodies of one sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// Which sandbox.
    pub sandbox: SandboxId,
    /// The key, sealed under the master key; `None`: it was destroyed.
    pub sealed: Option<Bytes>,
}

/// How what a sandbox wrote and read is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Under no key.
    None,
    /// Some of it under a key: the older part is not.
    Partial,
    /// Under a key.
    Sealed,
    /// Its key was destroyed.
    Erased,
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

/// An event with its link of the hash chain, as verification reads it: what is stored, not what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainedFrame {
    /// Where it stands.
    pub position: Position,
    /// The chain that it is in.
    pub tenant: TenantId,
    /// Its exact header.
    pub header: Bytes,
    /// What the link covers of its body, if it ever had one.
    pub body_hash: Option<[u8; 32]>,
    /// Its body, if it is still there.
    pub body: Option<StoredBody>,
    /// The link.
    pub hash: ChainHash,
    /// What queries find it by; `None` where it does not come from a database.
    pub columns: Option<Box<Columns>>,
}

/// What queries find an event by. No hash covers it: it must be what the event itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// The id, 16 bytes.
    pub id: Bytes,
    /// The name of its type.
    pub type_name: String,
    /// When, in microseconds since 1970.
    pub time_us: i64,
    /// The sandbox, 16 bytes.
    pub sandbox: Option<Bytes>,
    /// The exec, 16 bytes.
    pub exec: Option<Bytes>,
    /// How long its body is, before it was encoded.
    pub body_length: Option<i64>,
    /// What its body is found by, if that is still there.
    pub body: Option<BodyColumns>,
}

/// What queries find a body by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BodyColumns {
    /// The exec, 16 bytes.
    pub exec: Bytes,
    /// The stream's number.
    pub stream: i64,
    /// Where it begins in the stream.
    pub offset: Option<i64>,
    /// How long it is, before it was encoded.
    pub length: i64,
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
/// those that have not ended; by place, for what has not ended, in the order of keys.
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
}

impl Default for Order {
    fn default() -> Self {
        Self::Key(None)
    }
}

/// A row with all that it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WholeRow {
    /// What it is found by, as text: the columns of [`ROW_COLUMNS`](crate::ROW_COLUMNS).
    pub columns: Vec<Option<String>>,
    /// The state as JSON; `None`: it was deleted.
    pub state: Option<String>,
}

/// A row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Which one.
    pub key: Key,
    /// The state as JSON; `None`: it was deleted.
    pub state: Option<String>,
}

/// The event log and its read models.
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

    /// What time the database says it is, where it has a clock that may be another than ours.
    async fn clock(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(None)
    }

    /// Adds events and the read models that change with them, in one transaction. The events must have the positions
    /// after `batch.after`, without holes; a batch without events only moves the stream mark.
    async fn append(&self, batch: &AppendBatch) -> Result<(), AppendError>;

    /// Events, in order. Without their body where that is not kept any more.
    async fn events(&self, query: &EventQuery) -> Result<Vec<FoundEvent>, StoreError>;

    /// The first position whose event happened at or after an instant; the one after the head when none has. Events are
    /// in the order of their commits, and their times come from different clocks: near the instant this is off by as
    /// much as those differ.
    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, StoreError>;

    /// Up to `limit` events after a position and up to another, of one tenant or of all, in order, with their links of the
    /// hash chain. What is trimmed is left out in silence.
    async fn read_chain(
        &self,
        tenant: Option<&TenantId>,
        after: Position,
        up_to: Position,
        limit: u32,
    ) -> Result<Vec<ChainedFrame>, StoreError>;

    /// The ends of all chains, or of one tenant's, and the head that this is true at.
    async fn chain_ends(&self, tenant: Option<&TenantId>) -> Result<(Position, Vec<ChainPoint>), StoreError>;

    /// The first event that holds a byte at or after one of the two offsets; `None` while there is none.
    async fn output_start(
        &self,
        exec: ExecId,
        stdout_offset: u64,
        stderr_offset: u64,
    ) -> Result<Option<Position>, StoreError>;

    /// Output from `offset` on, in order and without holes: up to `max_bytes` bytes, or fewer when it is in many small
    /// pieces. Empty only when nothing is recorded at or after `offset`. The first and the last chunk are cut to fit.
    /// [`StoreError::Gone`] when the byte at `offset` was recorded and is not there any more.
    async fn output(
        &self,
        exec: ExecId,
        stream: OutputStream,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Vec<OutputChunk>, StoreError>;

    /// Rows of the read models.
    async fn rows(&self, query: &RowQuery) -> Result<Vec<StoredRow>, StoreError>;

    /// All of a kind that have not ended, and the head that this is true at.
    async fn live_rows(&self, kind: &'static str) -> Result<(Position, Vec<StoredRow>), StoreError>;

    /// The row of one thing with all that it is found by, deleted or not: what is stored, not what it should be.
    async fn whole_row(&self, kind: &'static str, key: &Key) -> Result<Option<WholeRow>, StoreError>;

    /// The first thing of a kind after `after` in the order of keys, that there are events of or a row.
    async fn next_key(&self, kind: &Kind, after: &Key) -> Result<Option<Key>, StoreError>;

    /// Which of these events are in the log. Events of output are not found by their id: what is recorded of them is told
    /// by the state of their exec.
    async fn known_ids(&self, ids: &[EventId]) -> Result<Vec<EventId>, StoreError>;

    /// The keys of these sandboxes; those that have none are left out.
    async fn data_keys(&self, sandboxes: &[SandboxId]) -> Result<Vec<DataKey>, StoreError>;

    /// Whether any sandbox has or had a key.
    async fn has_data_keys(&self) -> Result<bool, StoreError>;

    /// How what a sandbox wrote and read is kept.
    async fn protection(&self, sandbox: SandboxId) -> Result<Protection, StoreError>;

    /// Up to where things were dropped; of a class of which nothing was, nothing.
    async fn floors(&self) -> Result<Vec<Floor>, StoreError>;

    /// The first event of the oldest sandbox or exec that is not terminal.
    async fn first_live(&self) -> Result<Option<Position>, StoreError>;

    /// Drops some of what is at or below the floor of a class, the oldest first. Zero: there is nothing left to drop.
    /// Bounded, so that appends come in between.
    async fn drop_some(&self, class: RetentionClass) -> Result<u64, StoreError>;

    /// Does what was put off because somebody was reading: takes the last traces of destroyed keys away. Cheap when there
    /// is nothing to do.
    async fn tidy(&self) -> Result<(), StoreError>;

    /// Ends all connections, after which the files of the store are complete by themselves. It is of no use afterwards.
    async fn close(&self) {}
}
