mod append;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use events::{Position, RetentionClass};
use record::{AppendBatch, AppendError, Record, StoreError, signed};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Row, Sqlite};

use super::sql::{Change, Dialect, Fault, SqlStore, drop_sql, erased_at, failed, not_migrated};
use super::{OpenError, StoreOptions, migrations};

/// How long a writer waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
/// How many rows are dropped at once; output is in pieces of up to 64 KiB.
const DROPPED_ROWS: u32 = 256;
pub(super) async fn open(path: &Path, store_options: &StoreOptions) -> Result<Record, OpenError> {
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
    {
        tokio::fs::create_dir_all(directory).await.map_err(OpenError::Directory)?;
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
        // Output is in pieces of up to 64 KiB: fewer, larger pages halve what they cost. New databases only.
        .page_size(8 << 10)
        .pragma("wal_autocheckpoint", "4000")
        // What is deleted is overwritten, so that no key outlives its end in a free corner of a page.
        .pragma("secure_delete", "ON");
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.clone().pragma("cache_size", "-8000"))
        .await
        .map_err(|error| OpenError::Connect(error.into()))?;
    migrations::sqlite().run(&writer).await.map_err(not_migrated::<Sqlite>)?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.create_if_missing(false).read_only(true))
        .await
        .map_err(|error| OpenError::Connect(error.into()))?;
    Ok(Record::of(SqlStore {
        writer,
        readers,
        memory: Memory::default(),
        master_key: store_options.master_key.clone(),
    }))
}

#[async_trait]
impl Dialect for Sqlite {
    const HINTS: bool = true;

    type Memory = Memory;

    async fn append(store: &SqlStore<Self>, batch: &AppendBatch) -> Result<(), AppendError> {
        append::append(&store.writer, batch).await?;
        if batch.data_keys.iter().any(|change| erased_at(change).is_some()) {
            store.memory.unswept.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The write-ahead log has what was there before, until it is begun anew.
    async fn sweep(store: &SqlStore<Self>) -> Result<(), StoreError> {
        if !store.memory.unswept.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        // Without waiting for readers: there will be another time.
        let swept = async {
            let mut connection = Change::begin(&store.writer).await?;
            sqlx::query("PRAGMA busy_timeout = 0").execute(&mut *connection).await?;
            let swept = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(&mut *connection).await;
            let timeout = format!("PRAGMA busy_timeout = {}", BUSY_TIMEOUT.as_millis());
            sqlx::query(AssertSqlSafe(timeout)).execute(&mut *connection).await?;
            let busy = swept?.try_get::<i64, _>(0)?;
            connection.done();
            Ok(busy)
        };
        let swept = swept.await;
        if !matches!(swept, Ok(0)) {
            store.memory.unswept.store(true, Ordering::Relaxed);
        }
        swept.map(|_| ()).map_err(failed::<Self>("sweep destroyed keys away"))
    }

    async fn drop_some(
        store: &SqlStore<Self>,
        class: RetentionClass,
        floor: Position,
    ) -> Result<u64, StoreError> {
        let failed = failed::<Self>("drop what is old");
        let mut connection = Change::begin(&store.writer).await.map_err(&failed)?;
        // Overwriting what is dropped, and not only marking it as free, would cost as much as recording it did.
        sqlx::query("PRAGMA secure_delete = FAST").execute(&mut *connection).await.map_err(&failed)?;
        let mut dropped = 0;
        let tables: &[&str] = match class {
            RetentionClass::Output => &["bodies"],
            RetentionClass::Lifecycle => &["bodies", "events"],
        };
        for table in tables {
            let done = sqlx::query(AssertSqlSafe(drop_sql(table, DROPPED_ROWS)))
                .bind(signed(floor.0))
                .execute(&mut *connection)
                .await
                .map_err(&failed)?;
            dropped += done.rows_affected();
            // An event does not go before its body.
            if dropped > 0 {
                break;
            }
        }
        sqlx::query("PRAGMA secure_delete = ON").execute(&mut *connection).await.map_err(&failed)?;
        connection.done();
        Ok(dropped)
    }

    fn fault(error: &dyn sqlx::error::DatabaseError) -> Fault {
        let code = error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default();
        // The lower byte is the primary code.
        match code & 0xff {
            // TOOBIG, CONSTRAINT, MISMATCH, RANGE.
            18 | 19 | 20 | 25 => Fault::Data,
            // CORRUPT, NOTADB.
            11 | 26 => Fault::Damage,
            // ERROR, INTERNAL, SCHEMA, MISUSE: what the statement says.
            1 | 2 | 17 | 21 => Fault::Statement,
            // PERM, ABORT, BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL and the like.
            _ => Fault::State,
        }
    }
}

/// See [`Dialect::Memory`].
#[derive(Default)]
pub(super) struct Memory {
    /// Keys were destroyed, and what the write-ahead log has of them not yet swept away.
    unswept: AtomicBool,
}
