mod append;

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use events::{Position, RetentionClass};
use record::{AppendBatch, AppendError, Record, StoreError, signed};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, Postgres};

use super::sql::{Change, Dialect, Fault, SqlStore, drop_sql, erased_at, failed, not_migrated};
use super::{OpenError, StoreOptions, migrations};

const READERS: u32 = 8;
/// How many rows are dropped at once.
const DROPPED_ROWS: u32 = 2_000;
/// How long a connection is waited for. While the server is away a fifth of it is the longest pause between two tries, so it
/// is also by how much its return is noticed late.
const PATIENCE: Duration = Duration::from_secs(8);
/// A connection that was used this recently is used again without asking whether it still works.
const TRUSTED_IDLE: Duration = Duration::from_millis(200);

pub(super) async fn open(url: &str, store_options: &StoreOptions) -> Result<Record, OpenError> {
    // The source of a parse error would repeat the URL, which may hold a password.
    let options = PgConnectOptions::from_str(url)
        .map_err(|_| OpenError::Url("postgres".to_owned()))?
        .application_name("stacyvm");
    let pool = |connections| {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(PATIENCE)
            .test_before_acquire(false)
            // A server that was restarted has cut every connection. While work goes on a failed call says so; whoever
            // comes back after a pause should not be the one to find out.
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < TRUSTED_IDLE {
                        return Ok(true);
                    }
                    connection.ping().await.map(|()| true)
                })
            })
            .connect_with(options.clone())
    };
    let writer = pool(1).await.map_err(|error| OpenError::Connect(error.into()))?;
    migrations::postgres().run(&writer).await.map_err(not_migrated::<Postgres>)?;
    let readers = pool(READERS).await.map_err(|error| OpenError::Connect(error.into()))?;
    Ok(Record::of(SqlStore {
        writer,
        readers,
        memory: Memory::default(),
        master_key: store_options.master_key.clone(),
    }))
}

/// Positions whose bodies are in one partition; see `make_bodies_partition`.
const PARTITION: u64 = 1_000_000;

/// See [`Dialect::Memory`].
#[derive(Default)]
pub(super) struct Memory {
    /// Up to which partition of bodies (exclusive) this process knows that they are there.
    partitions: AtomicU64,
    /// Keys were destroyed, and their old rows not yet swept away.
    unswept: AtomicBool,
}

/// Makes the partitions that the batch needs, and the one after.
async fn make_room(
    made: &AtomicU64,
    connection: &mut PgConnection,
    batch: &AppendBatch,
) -> Result<(), sqlx::Error> {
    let wanted = batch.end().0 / PARTITION + 2;
    if made.load(Ordering::Relaxed) >= wanted {
        return Ok(());
    }
    for number in batch.after.0 / PARTITION..wanted {
        sqlx::query("SELECT make_bodies_partition($1)")
            .bind(signed(number))
            .execute(&mut *connection)
            .await?;
    }
    made.store(wanted, Ordering::Relaxed);
    Ok(())
}

/// Drops one partition of bodies all of which are at or below the floor. False: there is none.
async fn drop_partition(connection: &mut PgConnection, floor: Position) -> Result<bool, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'bodies'::regclass",
    )
    .fetch_all(&mut *connection)
    .await?;
    let below = |name: &&String| {
        let number = name.strip_prefix("bodies_").and_then(|number| number.parse::<u64>().ok());
        number.is_some_and(|number| (number + 1) * PARTITION <= floor.0 + 1)
    };
    let Some(name) = names.iter().find(below) else { return Ok(false) };
    let mut transaction = connection.begin().await?;
    // Whoever reads goes first: a drop that waits would hold up everybody behind it.
    sqlx::query("SET LOCAL lock_timeout = '2s'").execute(&mut *transaction).await?;
    sqlx::query(sqlx::AssertSqlSafe(format!("DROP TABLE {name}"))).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(true)
}

#[async_trait]
impl Dialect for Postgres {
    const HINTS: bool = false;

    type Memory = Memory;

    async fn append(store: &SqlStore<Self>, batch: &AppendBatch) -> Result<(), AppendError> {
        let failed = failed::<Self>("append events");
        let mut change = Change::begin(&store.writer).await.map_err(&failed)?;
        make_room(&store.memory.partitions, &mut change, batch).await.map_err(&failed)?;
        let taken = append::query(batch).fetch_optional(&mut *change).await.map_err(&failed)?;
        change.done();
        if taken.is_none() {
            return Err(AppendError::Conflict);
        }
        if batch.data_keys.iter().any(|change| erased_at(change).is_some()) {
            store.memory.unswept.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The old version of a row that was changed stays in the table until somebody sweeps.
    async fn sweep(store: &SqlStore<Self>) -> Result<(), StoreError> {
        if !store.memory.unswept.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let swept = async {
            let mut change = Change::begin(&store.writer).await?;
            sqlx::query("VACUUM data_keys").execute(&mut *change).await?;
            change.done();
            Ok(())
        };
        if let Err(error) = swept.await {
            store.memory.unswept.store(true, Ordering::Relaxed);
            return Err(failed::<Self>("sweep destroyed keys away")(error));
        }
        Ok(())
    }

    async fn clock(store: &SqlStore<Self>) -> Result<Option<DateTime<Utc>>, StoreError> {
        let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)";
        let microseconds: i64 = sqlx::query_scalar(sql).fetch_one(&store.readers).await.map_err(failed::<
            Self,
        >(
            "ask for the time",
        ))?;
        Ok(DateTime::from_timestamp_micros(microseconds))
    }

    async fn drop_some(
        store: &SqlStore<Self>,
        class: RetentionClass,
        floor: Position,
    ) -> Result<u64, StoreError> {
        let failed = failed::<Self>("drop what is old");
        let mut change = Change::begin(&store.writer).await.map_err(&failed)?;
        if drop_partition(&mut change, floor).await.map_err(&failed)? {
            change.done();
            return Ok(1);
        }
        let mut dropped = 0;
        let tables: &[&str] = match class {
            RetentionClass::Output => &["bodies"],
            RetentionClass::Lifecycle => &["bodies", "events"],
        };
        for table in tables {
            let sql = drop_sql(table, DROPPED_ROWS);
            let done =
                sqlx::query(sqlx::AssertSqlSafe(sql)).bind(signed(floor.0)).execute(&mut *change).await;
            dropped = done.map_err(&failed)?.rows_affected();
            // An event does not go before its body.
            if dropped > 0 {
                break;
            }
        }
        change.done();
        Ok(dropped)
    }

    fn fault(error: &dyn sqlx::error::DatabaseError) -> Fault {
        let code = error.code().unwrap_or_default();
        match code.get(..2).unwrap_or_default() {
            // Data exception, integrity constraint, program limit exceeded (a row too large for an index).
            "22" | "23" | "54" => Fault::Data,
            // A standby that is not yet primary is a read-only transaction; any other use of the class is a mistake.
            "25" if code != "25006" => Fault::Statement,
            // Data corrupted, index corrupted.
            "XX" if code == "XX001" || code == "XX002" => Fault::Damage,
            // Feature not supported, syntax error or access rule.
            "0A" | "42" => Fault::Statement,
            // Connection, authorization, rollback, resources, operator intervention, system error and the like.
            _ => Fault::State,
        }
    }
}
