use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use events::{ChainPoint, ExecState, Position, RetentionClass, SandboxState};
use record::{
    AppendBatch, AppendError, AppendEvent, DataKeyChange, EventStore, Floor, StoreError, TemplateChange,
    WebhookChange, searchable, signed,
};
use sqlx::error::BoxDynError;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, Connection, Encode, Pool, Row, Sqlite, SqliteConnection, Type};

use super::sql::{
    BodyRow, Change, Dialect, Fault, SqlStore, body_rows, class_name, drop_sql, erased_at, failed,
    not_migrated, pieces, sealed_key, state_json,
};
use super::{OpenError, StoreOptions, migrations};

/// How long a writer waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
/// How many rows are dropped at once; output is in pieces of up to 64 KiB.
const DROPPED_ROWS: u32 = 256;
/// How many rows one statement adds. Few fixed sizes, so that their prepared statements are reused; 3 is a short exec.
const EVENT_ROWS: &[usize] = &[128, 32, 8, 4, 3, 2, 1];
const EXEC_ROWS: &[usize] = &[32, 4, 1];

pub(super) async fn open(
    path: &Path,
    store_options: &StoreOptions,
) -> Result<Arc<dyn EventStore>, OpenError> {
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
    Ok(Arc::new(SqlStore {
        writer,
        readers,
        memory: Memory::default(),
        master_key: store_options.master_key.clone(),
    }))
}

#[async_trait]
impl Dialect for Sqlite {
    type Memory = Memory;

    async fn append(store: &SqlStore<Self>, batch: &AppendBatch) -> Result<(), AppendError> {
        append(&store.writer, batch).await?;
        if batch.data_keys.iter().any(|change| erased_at(change).is_some()) {
            store.memory.unswept.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The write-ahead log has what was there before, until it is begun anew.
    async fn tidy(store: &SqlStore<Self>) -> Result<(), StoreError> {
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

async fn append(writer: &Pool<Sqlite>, batch: &AppendBatch) -> Result<(), AppendError> {
    let failed = failed::<Sqlite>("append events");
    let mut change = Change::begin(writer).await.map_err(&failed)?;
    if is_small(batch) {
        append_at_once(&mut change, batch).await.map_err(conflict_or)?;
    } else {
        let mut transaction = change.begin_with(BEGIN).await.map_err(&failed)?;
        let mut script = Script::new(&mut transaction, false);
        move_head(&mut script, batch).await.map_err(conflict_or)?;
        add_rows(&mut script, batch).await?;
        transaction.commit().await.map_err(&failed)?;
    }
    change.done();
    Ok(())
}

const BEGIN: &str = "BEGIN IMMEDIATE";

/// The whole transaction as one script: what a short exec costs is not the rows but the switches between threads. It stops
/// where it fails, inside the transaction that it began, which ends with the connection.
async fn append_at_once(connection: &mut SqliteConnection, batch: &AppendBatch) -> Result<(), StoreError> {
    let mut script = Script::new(connection, true);
    script.add(BEGIN).await?;
    move_head(&mut script, batch).await?;
    add_rows(&mut script, batch).await?;
    script.add("COMMIT").await?;
    script.flush().await
}

/// Moves the head if it stands where the batch begins; otherwise it would become NULL, which it must not be.
async fn move_head(script: &mut Script<'_>, batch: &AppendBatch) -> Result<(), StoreError> {
    script
        .bind(signed(batch.after.0))
        .bind(signed(batch.end().0))
        .bind(signed(batch.stream.sequence))
        .bind(batch.stream.incarnation.as_str());
    let sql =
        "UPDATE head SET position = CASE WHEN position = ? THEN ? END, stream_sequence = ?, incarnation = ?";
    script.add(sql).await
}

fn conflict_or(error: StoreError) -> AppendError {
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(inner) = cause {
        if inner.to_string().contains("NOT NULL constraint failed: head.position") {
            return AppendError::Conflict;
        }
        cause = inner.source();
    }
    error.into()
}

async fn add_rows(script: &mut Script<'_>, batch: &AppendBatch) -> Result<(), StoreError> {
    for piece in pieces(batch.events.len(), EVENT_ROWS) {
        insert_events(script, &batch.events[piece]).await?;
    }
    let bodies = body_rows(batch);
    for piece in pieces(bodies.len(), EVENT_ROWS) {
        insert_bodies(script, &bodies[piece]).await?;
    }
    for sandbox in &batch.sandboxes {
        put_sandbox(script, sandbox).await?;
    }
    for piece in pieces(batch.execs.len(), EXEC_ROWS) {
        put_execs(script, &batch.execs[piece]).await?;
    }
    for change in &batch.templates {
        put_template(script, change).await?;
    }
    for change in &batch.webhooks {
        put_webhook(script, change).await?;
    }
    for change in &batch.data_keys {
        put_data_key(script, change).await?;
    }
    for floor in &batch.floors {
        raise_floor(script, floor).await?;
    }
    for point in &batch.chain_heads {
        put_chain_head(script, point).await?;
    }
    Ok(())
}

/// The text of a statement for every number of rows that it is used with.
type Statements = Vec<(usize, String)>;

/// `INSERT ... VALUES (?,?),(?,?) ...`
fn statements(sizes: &[usize], columns: usize, start: &str, end: &str) -> Statements {
    let row = format!("({})", vec!["?"; columns].join(","));
    let text = |size| format!("{start} VALUES {}{end}", vec![row.as_str(); size].join(","));
    sizes.iter().map(|size| (*size, text(*size))).collect()
}

fn statement(statements: &Statements, rows: usize) -> &str {
    let found = statements.iter().find(|(size, _)| *size == rows);
    found.map_or("", |(_, sql)| sql)
}

/// Whether all statements of the batch are sent together. Only for what is most common and quick: there are few such
/// shapes, so that each is prepared once.
fn is_small(batch: &AppendBatch) -> bool {
    (1..=4).contains(&batch.events.len())
        && batch.sandboxes.len() <= 1
        && batch.execs.len() <= 1
        && batch.templates.is_empty()
        && batch.webhooks.is_empty()
        && batch.data_keys.is_empty()
        && batch.floors.is_empty()
        && batch.chain_heads.len() == 1
}

/// Statements on their way to the database. Each time that any are sent costs two switches between threads, which is more
/// than a small statement itself.
struct Script<'c> {
    connection: &'c mut SqliteConnection,
    together: bool,
    sql: String,
    arguments: SqliteArguments,
    unbound: Option<BoxDynError>,
}

impl<'c> Script<'c> {
    fn new(connection: &'c mut SqliteConnection, together: bool) -> Self {
        Self {
            connection,
            together,
            sql: String::new(),
            arguments: SqliteArguments::default(),
            unbound: None,
        }
    }

    /// Binds the next parameter.
    fn bind<'t>(&mut self, value: impl Encode<'t, Sqlite> + Type<Sqlite>) -> &mut Self {
        if let Err(error) = Arguments::add(&mut self.arguments, value) {
            self.unbound.get_or_insert(error);
        }
        self
    }

    /// Adds the statement whose parameters have been bound. Its placeholders are plain question marks.
    async fn add(&mut self, sql: &str) -> Result<(), StoreError> {
        self.sql.push_str(sql);
        self.sql.push(';');
        if self.together {
            return Ok(());
        }
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        let failed = failed::<Sqlite>("append events");
        let (sql, arguments) = (std::mem::take(&mut self.sql), std::mem::take(&mut self.arguments));
        if let Some(error) = self.unbound.take() {
            return Err(failed(sqlx::Error::Encode(error)));
        }
        if sql.is_empty() {
            return Ok(());
        }
        sqlx::query_with(AssertSqlSafe(sql), arguments)
            .execute(&mut *self.connection)
            .await
            .map_err(failed)?;
        Ok(())
    }
}

async fn insert_events(script: &mut Script<'_>, events: &[AppendEvent]) -> Result<(), StoreError> {
    static STATEMENTS: LazyLock<Statements> = LazyLock::new(|| {
        let start = "INSERT INTO events (position, id, tenant, sandbox, exec, type, time, header, body_length, \
                     body_hash, hash)";
        statements(EVENT_ROWS, 11, start, "")
    });
    for event in events {
        script
            .bind(signed(event.frame.position.0))
            .bind(&event.id.as_bytes()[..])
            .bind(event.tenant.as_str())
            .bind(event.sandbox.as_ref().map(|id| &id.as_bytes()[..]))
            .bind(event.exec.as_ref().map(|id| &id.as_bytes()[..]))
            .bind(event.type_name)
            .bind(event.time_us)
            .bind(&event.frame.header[..])
            .bind(event.body.as_ref().map(|body| signed(body.length)))
            .bind(event.body.as_ref().map(|body| &body.hash[..]))
            .bind(&event.hash.0[..]);
    }
    script.add(statement(&STATEMENTS, events.len())).await
}

async fn insert_bodies(script: &mut Script<'_>, bodies: &[BodyRow<'_>]) -> Result<(), StoreError> {
    static STATEMENTS: LazyLock<Statements> = LazyLock::new(|| {
        let start = "INSERT INTO bodies (position, exec, stream, byte_offset, length, encoding, body)";
        statements(EVENT_ROWS, 7, start, "")
    });
    for row in bodies {
        script
            .bind(row.position)
            .bind(row.exec)
            .bind(row.stream)
            .bind(row.offset)
            .bind(row.length)
            .bind(row.encoding)
            .bind(row.bytes);
    }
    script.add(statement(&STATEMENTS, bodies.len())).await
}

async fn put_sandbox(script: &mut Script<'_>, state: &SandboxState) -> Result<(), StoreError> {
    script
        .bind(&state.id.as_bytes()[..])
        .bind(state.tenant.as_str())
        .bind(state.spec.owner.as_deref().map(searchable))
        .bind(state.spec.provider.as_str())
        .bind(state.node().map(|node| node.as_str()))
        .bind(i16::from(state.is_terminal()))
        .bind(state.expires_at.timestamp_micros())
        .bind(state_json(state)?);
    let sql = "INSERT INTO sandboxes (id, tenant, owner, provider, node, ended, expires_at, state)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET node = excluded.node, ended = excluded.ended, expires_at = excluded.expires_at,
            state = excluded.state";
    script.add(sql).await
}

async fn put_execs(script: &mut Script<'_>, states: &[ExecState]) -> Result<(), StoreError> {
    static STATEMENTS: LazyLock<Statements> = LazyLock::new(|| {
        let start = "INSERT INTO execs (id, tenant, sandbox, ended, started_at, state)";
        let end = " ON CONFLICT DO UPDATE SET ended = excluded.ended, state = excluded.state";
        statements(EXEC_ROWS, 6, start, end)
    });
    for state in states {
        script
            .bind(&state.id.as_bytes()[..])
            .bind(state.tenant.as_str())
            .bind(&state.sandbox.as_bytes()[..])
            .bind(i16::from(state.is_over()))
            .bind(state.started_at.timestamp_micros())
            .bind(state_json(state)?);
    }
    script.add(statement(&STATEMENTS, states.len())).await
}

async fn put_template(script: &mut Script<'_>, change: &TemplateChange) -> Result<(), StoreError> {
    let template = change.template.as_ref().map(state_json).transpose()?;
    script.bind(change.tenant.as_str()).bind(searchable(&change.name)).bind(template);
    let sql = "INSERT INTO templates (tenant, name, template) VALUES (?, ?, ?)
        ON CONFLICT DO UPDATE SET template = excluded.template";
    script.add(sql).await
}

async fn put_webhook(script: &mut Script<'_>, change: &WebhookChange) -> Result<(), StoreError> {
    let state = change.state.as_ref().map(state_json).transpose()?;
    script.bind(&change.id.as_bytes()[..]).bind(change.tenant.as_str()).bind(state);
    let sql = "INSERT INTO webhooks (id, tenant, state) VALUES (?, ?, ?)
        ON CONFLICT DO UPDATE SET state = excluded.state";
    script.add(sql).await
}

async fn put_data_key(script: &mut Script<'_>, change: &DataKeyChange) -> Result<(), StoreError> {
    script
        .bind(&change.sandbox.as_bytes()[..])
        .bind(change.tenant.as_str())
        .bind(sealed_key(change))
        .bind(erased_at(change));
    let sql = "INSERT INTO data_keys (sandbox, tenant, sealed_key, erased_at) VALUES (?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET
            sealed_key = CASE WHEN excluded.erased_at IS NULL THEN sealed_key END,
            erased_at = COALESCE(erased_at, excluded.erased_at)";
    script.add(sql).await
}

async fn raise_floor(script: &mut Script<'_>, floor: &Floor) -> Result<(), StoreError> {
    script
        .bind(signed(floor.up_to.0))
        .bind(&floor.checkpoint.as_bytes()[..])
        .bind(class_name(floor.class))
        .bind(signed(floor.up_to.0));
    let sql = "UPDATE retention SET floor = ?, checkpoint = ? WHERE class = ? AND floor < ?";
    script.add(sql).await
}

async fn put_chain_head(script: &mut Script<'_>, point: &ChainPoint) -> Result<(), StoreError> {
    script.bind(point.tenant.as_str()).bind(signed(point.position.0)).bind(&point.hash.0[..]);
    let sql = "INSERT INTO chain_heads (tenant, position, hash) VALUES (?, ?, ?)
        ON CONFLICT DO UPDATE SET position = excluded.position, hash = excluded.hash";
    script.add(sql).await
}
