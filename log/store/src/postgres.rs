use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use events::{Position, RetentionClass};
use record::{AppendBatch, AppendError, EventStore, StoreError, searchable, signed};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, Postgres};

use super::sql::{
    Change, Dialect, Fault, SqlStore, body_rows, class_name, drop_sql, erased_at, failed, not_migrated,
    sealed_key, state_json,
};
use super::{OpenError, StoreOptions, migrations};

const READERS: u32 = 8;
/// How many rows are dropped at once.
const DROPPED_ROWS: u32 = 2_000;
/// How long a connection is waited for. While the server is away a fifth of it is the longest pause between two tries, so it
/// is also by how much its return is noticed late.
const PATIENCE: Duration = Duration::from_secs(8);
/// A connection that was used this recently is used again without asking whether it still works.
const TRUSTED_IDLE: Duration = Duration::from_millis(200);

pub(super) async fn open(url: &str, store_options: &StoreOptions) -> Result<Arc<dyn EventStore>, OpenError> {
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
    Ok(Arc::new(SqlStore {
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

/// The whole append in one statement, which is one transaction and one round trip: the head row is taken, and everything
/// else depends on it. A concurrent append waits for the row, sees that the head has moved, and adds nothing.
static APPEND: LazyLock<Arc<str>> = LazyLock::new(|| {
    "
WITH taken AS (
    UPDATE head SET position = $1, stream_sequence = $2, incarnation = $3 WHERE position = $4 RETURNING 1
), new_events AS (
    INSERT INTO events (position, id, tenant, sandbox, exec, type, time, header, body_length, body_hash, hash)
    SELECT u.* FROM taken, UNNEST(
        $5::bigint[], $6::bytea[], $7::text[], $8::bytea[], $9::bytea[], $10::text[], $11::bigint[],
        $12::bytea[], $13::bigint[], $14::bytea[], $15::bytea[]) AS u
), new_bodies AS (
    INSERT INTO bodies (position, exec, stream, byte_offset, length, encoding, body)
    SELECT u.* FROM taken, UNNEST(
        $16::bigint[], $36::bytea[], $37::smallint[], $38::bigint[], $39::bigint[], $40::smallint[],
        $41::bytea[]) AS u
), new_sandboxes AS (
    INSERT INTO sandboxes (id, tenant, owner, provider, node, ended, expires_at, state)
    SELECT u.* FROM taken, UNNEST(
        $17::bytea[], $18::text[], $19::text[], $20::text[], $21::text[], $22::smallint[], $23::bigint[],
        $24::text[]) AS u
    ON CONFLICT (id) DO UPDATE SET node = excluded.node, ended = excluded.ended,
        expires_at = excluded.expires_at, state = excluded.state
), new_execs AS (
    INSERT INTO execs (id, tenant, sandbox, ended, started_at, state)
    SELECT u.* FROM taken, UNNEST(
        $25::bytea[], $26::text[], $27::bytea[], $28::smallint[], $29::bigint[], $30::text[]) AS u
    ON CONFLICT (id) DO UPDATE SET ended = excluded.ended, state = excluded.state
), new_templates AS (
    INSERT INTO templates (tenant, name, template)
    SELECT u.* FROM taken, UNNEST($31::text[], $32::text[], $33::text[]) AS u
    ON CONFLICT (tenant, name) DO UPDATE SET template = excluded.template
), new_chain_heads AS (
    INSERT INTO chain_heads (tenant, position, hash)
    SELECT u.* FROM taken, UNNEST($34::text[], $52::bigint[], $35::bytea[]) AS u
    ON CONFLICT (tenant) DO UPDATE SET position = excluded.position, hash = excluded.hash
), new_data_keys AS (
    INSERT INTO data_keys (sandbox, tenant, sealed_key, erased_at)
    SELECT u.* FROM taken, UNNEST($42::bytea[], $43::text[], $44::bytea[], $45::bigint[]) AS u
    ON CONFLICT (sandbox) DO UPDATE SET
        sealed_key = CASE WHEN excluded.erased_at IS NULL THEN data_keys.sealed_key END,
        erased_at = COALESCE(data_keys.erased_at, excluded.erased_at)
), new_webhooks AS (
    INSERT INTO webhooks (id, tenant, state)
    SELECT u.* FROM taken, UNNEST($49::bytea[], $50::text[], $51::text[]) AS u
    ON CONFLICT (id) DO UPDATE SET state = excluded.state
), new_floors AS (
    UPDATE retention r SET floor = u.floor, checkpoint = u.checkpoint
    FROM taken, UNNEST($46::text[], $47::bigint[], $48::bytea[]) AS u (class, floor, checkpoint)
    WHERE r.class = u.class AND r.floor < u.floor
)
SELECT 1 FROM taken"
        .into()
});

#[async_trait]
impl Dialect for Postgres {
    type Memory = Memory;

    async fn append(store: &SqlStore<Self>, batch: &AppendBatch) -> Result<(), AppendError> {
        let failed = failed::<Self>("append events");
        let mut change = Change::begin(&store.writer).await.map_err(&failed)?;
        make_room(&store.memory.partitions, &mut change, batch).await.map_err(&failed)?;
        let events = &batch.events;
        let bodies = body_rows(batch);
        let (sandboxes, execs, templates) = (&batch.sandboxes, &batch.execs, &batch.templates);
        let (data_keys, floors) = (&batch.data_keys, &batch.floors);
        macro_rules! column {
            ($rows:expr, $row:ident => $value:expr) => {
                $rows.iter().map(|$row| $value).collect::<Vec<_>>()
            };
        }
        let sandbox_states = sandboxes.iter().map(state_json).collect::<Result<Vec<_>, _>>()?;
        let exec_states = execs.iter().map(state_json).collect::<Result<Vec<_>, _>>()?;
        let template_states = templates
            .iter()
            .map(|change| change.template.as_ref().map(state_json).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let webhook_states = batch
            .webhooks
            .iter()
            .map(|change| change.state.as_ref().map(state_json).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let taken = sqlx::query(sqlx::AssertSqlSafe(Arc::clone(&APPEND)))
            .bind(signed(batch.end().0))
            .bind(signed(batch.stream.sequence))
            .bind(batch.stream.incarnation.as_str())
            .bind(signed(batch.after.0))
            .bind(column!(events, event => signed(event.frame.position.0)))
            .bind(column!(events, event => &event.id.as_bytes()[..]))
            .bind(column!(events, event => event.tenant.as_str()))
            .bind(column!(events, event => event.sandbox.as_ref().map(|id| &id.as_bytes()[..])))
            .bind(column!(events, event => event.exec.as_ref().map(|id| &id.as_bytes()[..])))
            .bind(column!(events, event => event.type_name))
            .bind(column!(events, event => event.time_us))
            .bind(column!(events, event => &event.frame.header[..]))
            .bind(column!(events, event => event.body.as_ref().map(|body| signed(body.length))))
            .bind(column!(events, event => event.body.as_ref().map(|body| &body.hash[..])))
            .bind(column!(events, event => &event.hash.0[..]))
            .bind(column!(bodies, row => row.position))
            .bind(column!(sandboxes, state => &state.id.as_bytes()[..]))
            .bind(column!(sandboxes, state => state.tenant.as_str()))
            .bind(column!(sandboxes, state => state.spec.owner.as_deref().map(searchable)))
            .bind(column!(sandboxes, state => state.spec.provider.as_str()))
            .bind(column!(sandboxes, state => state.node().map(|node| node.as_str())))
            .bind(column!(sandboxes, state => i16::from(state.is_terminal())))
            .bind(column!(sandboxes, state => state.expires_at.timestamp_micros()))
            .bind(sandbox_states)
            .bind(column!(execs, state => &state.id.as_bytes()[..]))
            .bind(column!(execs, state => state.tenant.as_str()))
            .bind(column!(execs, state => &state.sandbox.as_bytes()[..]))
            .bind(column!(execs, state => i16::from(state.is_over())))
            .bind(column!(execs, state => state.started_at.timestamp_micros()))
            .bind(exec_states)
            .bind(column!(templates, change => change.tenant.as_str()))
            .bind(column!(templates, change => searchable(&change.name)))
            .bind(template_states)
            .bind(column!(batch.chain_heads, point => point.tenant.as_str()))
            .bind(column!(batch.chain_heads, point => &point.hash.0[..]))
            .bind(column!(bodies, row => row.exec))
            .bind(column!(bodies, row => row.stream))
            .bind(column!(bodies, row => row.offset))
            .bind(column!(bodies, row => row.length))
            .bind(column!(bodies, row => row.encoding))
            .bind(column!(bodies, row => row.bytes))
            .bind(column!(data_keys, change => &change.sandbox.as_bytes()[..]))
            .bind(column!(data_keys, change => change.tenant.as_str()))
            .bind(column!(data_keys, change => sealed_key(change)))
            .bind(column!(data_keys, change => erased_at(change)))
            .bind(column!(floors, floor => class_name(floor.class)))
            .bind(column!(floors, floor => signed(floor.up_to.0)))
            .bind(column!(floors, floor => &floor.checkpoint.as_bytes()[..]))
            .bind(column!(batch.webhooks, change => &change.id.as_bytes()[..]))
            .bind(column!(batch.webhooks, change => change.tenant.as_str()))
            .bind(webhook_states)
            .bind(column!(batch.chain_heads, point => signed(point.position.0)))
            .fetch_optional(&mut *change)
            .await
            .map_err(&failed)?;
        change.done();
        if taken.is_none() {
            return Err(AppendError::Conflict);
        }
        if data_keys.iter().any(|change| erased_at(change).is_some()) {
            store.memory.unswept.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The old version of a row that was changed stays in the table until somebody sweeps.
    async fn tidy(store: &SqlStore<Self>) -> Result<(), StoreError> {
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
