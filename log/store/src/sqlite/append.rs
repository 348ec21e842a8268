//! An append, in as few statements as it can be.

use std::sync::LazyLock;

use events::{ChainPoint, Subject};
use record::{
    AppendBatch, AppendError, AppendEvent, DataKeyChange, Floor, Row as AggregateRow, StoreError, signed,
};
use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Connection, Encode, Pool, Sqlite, SqliteConnection, Type};

use crate::sql::{BodyRow, Change, body_rows, class_name, erased_at, failed, pieces, sealed_key};

/// How many rows one statement adds. Few fixed sizes, so that their prepared statements are reused; 3 is a short exec.
const EVENT_ROWS: &[usize] = &[128, 32, 8, 4, 3, 2, 1];
const ROWS: &[usize] = &[32, 4, 1];

/// Appends a batch in one transaction.
pub(super) async fn append(writer: &Pool<Sqlite>, batch: &AppendBatch) -> Result<(), AppendError> {
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
    for piece in pieces(batch.rows.len(), ROWS) {
        put_rows(script, &batch.rows[piece]).await?;
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
        && batch.rows.len() <= 2
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
                     body_hash, hash, subject)";
        statements(EVENT_ROWS, 12, start, "")
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
            .bind(&event.hash.0[..])
            .bind(event.subject.as_ref().map(Subject::as_bytes));
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

async fn put_rows(script: &mut Script<'_>, rows: &[AggregateRow]) -> Result<(), StoreError> {
    static STATEMENTS: LazyLock<Statements> = LazyLock::new(|| {
        let start = "INSERT INTO aggregates (kind, id, tenant, owner, parent, place, status, label, ended, rank, \
                     sort_at, due_at, state)";
        // What never changes is left alone, so that its indexes are.
        let end = " ON CONFLICT DO UPDATE SET owner = excluded.owner, place = excluded.place, \
                   status = excluded.status, label = excluded.label, ended = excluded.ended, \
                   rank = excluded.rank, due_at = excluded.due_at, state = excluded.state";
        statements(ROWS, 13, start, end)
    });
    for AggregateRow { kind, key, fields, state } in rows {
        script
            .bind(*kind)
            .bind(key.as_bytes())
            .bind(fields.tenant.as_str())
            .bind(fields.owner.as_deref())
            .bind(fields.parent.as_ref().map(|parent| parent.as_bytes()))
            .bind(fields.place.as_deref())
            .bind(fields.status)
            .bind(fields.label.as_deref())
            .bind(i16::from(fields.ended))
            .bind(fields.rank)
            .bind(fields.sort_us)
            .bind(fields.due_us)
            .bind(state.as_deref());
    }
    script.add(statement(&STATEMENTS, rows.len())).await
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
