//! What the two databases share: errors, and the forms that values take in columns.

use chrono::{DateTime, Utc};
use events::{OutputStream, Position, RetentionClass};
use record::{AppendBatch, AppendError, DataKeyChange, KeyFate, StoreError, signed};
use secrets::MasterKey;
use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};

use super::OpenError;
use super::asking::{Asks, Cells};

/// What a database must bring beside the common reads.
#[async_trait::async_trait]
pub(super) trait Dialect: Database<Row: Cells> + Asks {
    /// Whether statements tell it by which index they are answered: it keeps no statistics, and would guess.
    const HINTS: bool;

    /// What a process remembers of its database.
    type Memory: Default + Send + Sync;

    /// Adds a batch in one transaction.
    async fn append(store: &SqlStore<Self>, batch: &AppendBatch) -> Result<(), AppendError>;

    /// Does what was put off; see [`record::DataKeys::sweep`].
    async fn sweep(store: &SqlStore<Self>) -> Result<(), StoreError>;

    /// What time the database says it is; see [`record::Upkeep::clock`].
    async fn clock(_store: &SqlStore<Self>) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(None)
    }

    /// Drops some of what is at or below a floor; see [`record::Upkeep::drop_some`].
    async fn drop_some(
        store: &SqlStore<Self>,
        class: RetentionClass,
        floor: Position,
    ) -> Result<u64, StoreError>;

    /// Whose fault an error of the database itself is.
    fn fault(error: &dyn sqlx::error::DatabaseError) -> Fault;
}

/// An event store in an SQL database.
pub(super) struct SqlStore<DB: Dialect> {
    /// For appends.
    pub writer: Pool<DB>,
    /// For everything else.
    pub readers: Pool<DB>,
    /// See there.
    pub memory: DB::Memory,
    /// What keys of sealed bodies are opened with.
    pub master_key: Option<MasterKey>,
}

impl<DB: Dialect> std::fmt::Debug for SqlStore<DB> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqlStore").field("database", &DB::NAME).finish()
    }
}

/// Whose fault an error of the database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Of what was to be stored: it will be refused for ever, and only that.
    Data,
    /// Of the state that the database is in: full, away, busy, read-only. It may pass.
    State,
    /// What is stored is damaged.
    Damage,
    /// Of the statement or of the schema. Somebody has to mend it; no message is to blame.
    Statement,
}

/// Sorts what sqlx says into what a caller can do about it.
pub(super) fn failed<DB: Dialect>(operation: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| {
        let fault = fault::<DB>(&error);
        let source = error.into();
        match fault {
            Fault::Data => StoreError::Unfit { operation, source },
            Fault::State => StoreError::Unavailable { operation, source },
            Fault::Damage => damaged(operation, source),
            Fault::Statement => StoreError::Refused { operation, source },
        }
    }
}

/// Whose fault an error is. What is not known to be the fault of the data never is: a message that is put aside by mistake
/// is a hole in the record, one that is tried again is only late.
#[expect(clippy::wildcard_enum_match_arm, reason = "which variants sqlx has depends on its features")]
pub(super) fn fault<DB: Dialect>(error: &sqlx::Error) -> Fault {
    match error {
        sqlx::Error::Database(error) => DB::fault(error.as_ref()),
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Fault::Damage,
        sqlx::Error::Encode(_) => Fault::Data,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::InvalidSavePointStatement
        | sqlx::Error::BeginFailed => Fault::State,
        // Names of columns and types, configuration: ours.
        _ => Fault::Statement,
    }
}

/// Why the schema could not be brought up to date: the database may only be full, or away, for a moment.
pub(super) fn not_migrated<DB: Dialect>(error: sqlx::migrate::MigrateError) -> OpenError {
    use sqlx::migrate::MigrateError;
    let passes = if let MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _) = &error {
        fault::<DB>(cause) == Fault::State
    } else {
        false
    };
    if passes { OpenError::Connect(error.into()) } else { OpenError::Migrate(error.into()) }
}

/// A connection for one change, which is closed and replaced by a fresh one unless the change is known to be whole: after a
/// failure, or a caller who went away, what state a connection and the library's book-keeping of it are in is anybody's
/// guess.
pub(super) struct Change<DB: Database> {
    connection: PoolConnection<DB>,
    whole: bool,
}

impl<DB: Database> Change<DB> {
    pub(super) async fn begin(writer: &Pool<DB>) -> Result<Self, sqlx::Error> {
        Ok(Self { connection: writer.acquire().await?, whole: false })
    }

    /// The connection is as good as it was.
    pub(super) fn done(mut self) {
        self.whole = true;
    }
}

impl<DB: Database> std::ops::Deref for Change<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.connection
    }
}

impl<DB: Database> std::ops::DerefMut for Change<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        &mut self.connection
    }
}

impl<DB: Database> Drop for Change<DB> {
    fn drop(&mut self) {
        if !self.whole {
            self.connection.close_on_drop();
        }
    }
}

pub(super) fn damaged(
    operation: &'static str,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Damaged { operation, source: source.into() }
}

/// What is kept of one body.
pub(super) struct BodyRow<'b> {
    pub position: i64,
    pub exec: &'b [u8],
    pub stream: i16,
    pub offset: Option<i64>,
    pub length: i64,
    pub encoding: i16,
    pub bytes: &'b [u8],
}

/// The bodies of a batch that are kept.
pub(super) fn body_rows(batch: &AppendBatch) -> Vec<BodyRow<'_>> {
    let rows = batch.events.iter().filter_map(|event| {
        let (body, exec) = (event.body.as_ref()?, event.exec.as_ref()?);
        let stored = body.stored.as_ref()?;
        Some(BodyRow {
            position: signed(event.frame.position.0),
            exec: exec.as_bytes(),
            stream: body.stream.code(),
            offset: body.stream.offset().map(signed),
            length: signed(body.length),
            encoding: i16::from(stored.encoding.code()),
            bytes: &stored.bytes,
        })
    });
    rows.collect()
}

/// The sealed key of a change, where one is made.
pub(super) fn sealed_key(change: &DataKeyChange) -> Option<&[u8]> {
    match &change.fate {
        KeyFate::Made(sealed) => Some(sealed),
        KeyFate::Destroyed(_) => None,
    }
}

/// When a key is destroyed, where one is.
pub(super) const fn erased_at(change: &DataKeyChange) -> Option<i64> {
    match change.fate {
        KeyFate::Made(_) => None,
        KeyFate::Destroyed(at) => Some(at),
    }
}

/// How a class of retention is written in its column.
pub(super) const fn class_name(class: RetentionClass) -> &'static str {
    match class {
        RetentionClass::Output => "output",
        RetentionClass::Lifecycle => "lifecycle",
    }
}

/// Drops up to `rows` of the oldest rows of a table at or below a floor.
pub(super) fn drop_sql(table: &str, rows: u32) -> String {
    format!(
        "DELETE FROM {table} WHERE position IN (SELECT position FROM {table} WHERE position <= $1 ORDER BY position LIMIT {rows})"
    )
}

/// How a stream is written in its column.
pub(super) const fn stream_code(stream: OutputStream) -> i16 {
    match stream {
        OutputStream::Stdout => 1,
        OutputStream::Stderr => 2,
    }
}

/// Splits `total` rows into pieces of the given sizes, greatest first; the last size must be 1.
pub(super) fn pieces(total: usize, sizes: &'static [usize]) -> impl Iterator<Item = std::ops::Range<usize>> {
    let mut start = 0;
    std::iter::from_fn(move || {
        let size = *sizes.iter().find(|size| **size <= total - start && **size > 0)?;
        start += size;
        Some(start - size..start)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_everything_once() {
        for total in [0, 1, 2, 3, 31, 32, 33, 1000] {
            let covered: Vec<usize> = pieces(total, &[512, 32, 1]).flatten().collect();
            assert_eq!(covered, (0..total).collect::<Vec<_>>());
        }
    }
}
