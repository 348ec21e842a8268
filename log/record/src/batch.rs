use events::{
    ChainHash, ChainPoint, Event, EventId, ExecId, Fields, Frame, Key, Kind, Position, RetentionClass,
    SandboxId, Slot, StateError, StreamMark, Subject, TenantId,
};

use crate::AppendBody;

/// One event that is about to be recorded, with the columns that it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppendEvent {
    /// The exact bytes, and the position.
    pub frame: Frame,
    /// Unique in the log.
    pub id: EventId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which sandbox it is about.
    pub sandbox: Option<SandboxId>,
    /// Which exec it is about.
    pub exec: Option<ExecId>,
    /// The thing that it is about, where its events are found by that.
    pub subject: Option<Subject>,
    /// The name of its type.
    pub type_name: &'static str,
    /// When it happened, in microseconds since 1970.
    pub time_us: i64,
    /// The form in which the body of the frame is kept, if it has one.
    pub body: Option<AppendBody>,
    /// Its link of the tenant's hash chain.
    pub hash: ChainHash,
}

impl AppendEvent {
    /// The row of an event, which is about nothing that is found by its subject.
    pub fn new(event: &Event, frame: Frame, body: Option<AppendBody>, hash: ChainHash) -> Self {
        Self {
            frame,
            id: event.id,
            tenant: event.tenant.clone(),
            sandbox: event.sandbox,
            exec: event.data.exec(),
            subject: None,
            type_name: event.data.type_name(),
            time_us: event.time.timestamp_micros(),
            body,
            hash,
        }
    }
}

/// A row of the read models: what the log makes of one thing, and what it is found by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which kind of thing.
    pub kind: &'static str,
    /// Its key.
    pub key: Key,
    /// What it is found by.
    pub fields: Fields,
    /// The state as JSON; `None`: it was deleted.
    pub state: Option<String>,
}

impl Row {
    /// The row of a thing that was just changed by an event of this tenant.
    pub fn new(kind: &Kind, key: Key, slot: &Slot, tenant: TenantId) -> Result<Self, StateError> {
        let deleted = || Fields { ended: true, ..Fields::new(tenant, "deleted") };
        let fields = slot.fields().unwrap_or_else(deleted);
        Ok(Self { kind: kind.name, key, fields, state: slot.write()? })
    }
}

/// A key of sealed bodies that is made or destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKeyChange {
    /// Whose output and input it is for.
    pub sandbox: SandboxId,
    /// Whose sandbox that is.
    pub tenant: TenantId,
    /// What becomes of it.
    pub fate: KeyFate,
}

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyFate {
    /// It is new; this is the key, sealed.
    Made(Vec<u8>),
    /// It is destroyed, at this time in microseconds since 1970.
    Destroyed(i64),
}

/// Up to where things of a class were dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// The class.
    pub class: RetentionClass,
    /// Up to and including this position.
    pub up_to: Position,
    /// The checkpoint that speaks of it.
    pub checkpoint: EventId,
}

/// What one append adds. Every thing occurs at most once, in the state after the last event.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppendBatch {
    /// The position that the log must stand at.
    pub after: Position,
    /// How far the transport is copied with this batch.
    pub stream: StreamMark,
    /// The events, at `after + 1`, `after + 2` and so on.
    pub events: Vec<AppendEvent>,
    /// Things that changed.
    pub rows: Vec<Row>,
    /// Keys that are made or destroyed.
    pub data_keys: Vec<DataKeyChange>,
    /// Floors of retention that rise.
    pub floors: Vec<Floor>,
    /// The newest link of each tenant that has an event in the batch.
    pub chain_heads: Vec<ChainPoint>,
}

impl AppendBatch {
    /// Where the log stands after it.
    pub fn end(&self) -> Position {
        Position(self.after.0 + self.events.len() as u64)
    }
}
