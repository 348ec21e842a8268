use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use record::AppendEvent;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};

use super::ROWS;
use super::workload::Workload;

/// Which table.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// The columns of the log, found by position only.
    Plain,
    /// With the indexes of the log.
    Indexed,
}

/// Rows of one SQLite statement. More make it no faster.
const SQLITE_ROWS: usize = 125;
const COLUMNS: &str =
    "position, id, tenant, sandbox, exec, type, time, stream, byte_offset, header, body, hash";

/// The indexes of the log, in one table.
const INDEXES: [&str; 4] = [
    "CREATE UNIQUE INDEX events_id ON events (id) WHERE type <> 'exec.output'",
    "CREATE INDEX events_of_sandbox ON events (sandbox, position) WHERE sandbox IS NOT NULL",
    "CREATE INDEX events_of_exec ON events (exec, position) WHERE exec IS NOT NULL",
    "CREATE INDEX events_output ON events (exec, stream, byte_offset) WHERE stream IS NOT NULL",
];

/// Multi-row INSERTs, [`ROWS`] rows a transaction, with the same durability as the log.
pub async fn sqlite(path: &Path, work: &Workload, table: Table) -> anyhow::Result<Duration> {
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await?;
    sqlx::query(
        "CREATE TABLE events (position INTEGER PRIMARY KEY, id BLOB, tenant TEXT, sandbox BLOB, exec BLOB, type TEXT, \
         time INTEGER, stream INTEGER, byte_offset INTEGER, header BLOB, body BLOB, hash BLOB) STRICT",
    )
    .execute(&mut connection)
    .await?;
    if table == Table::Indexed {
        for index in INDEXES {
            sqlx::query(index).execute(&mut connection).await?;
        }
    }
    let began = Instant::now();
    for rows in work.rows.chunks(ROWS) {
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        for rows in rows.chunks(SQLITE_ROWS) {
            insert_sqlite(&mut transaction, rows).await?;
        }
        transaction.commit().await?;
    }
    let took = began.elapsed();
    connection.close().await?;
    Ok(took)
}

async fn insert_sqlite(connection: &mut SqliteConnection, rows: &[AppendEvent]) -> anyhow::Result<()> {
    let row = "(?,?,?,?,?,?,?,?,?,?,?,?)";
    let sql = format!("INSERT INTO events ({COLUMNS}) VALUES {}", vec![row; rows.len()].join(","));
    let mut query = sqlx::query(AssertSqlSafe(sql));
    for row in rows {
        query = query
            .bind(row.frame.position.0 as i64)
            .bind(&row.id.as_bytes()[..])
            .bind(row.tenant.as_str())
            .bind(row.sandbox.as_ref().map(|id| &id.as_bytes()[..]))
            .bind(row.exec.as_ref().map(|id| &id.as_bytes()[..]))
            .bind(row.type_name)
            .bind(row.time_us)
            .bind(row.body.as_ref().map(|body| body.stream.code()))
            .bind(offset(row))
            .bind(&row.frame.header[..])
            .bind((!row.frame.body.is_empty()).then_some(&row.frame.body[..]))
            .bind(&row.hash.0[..]);
    }
    query.execute(connection).await?;
    Ok(())
}

fn offset(row: &AppendEvent) -> Option<i64> {
    row.body.as_ref()?.stream.offset().map(|offset| offset as i64)
}

/// Multi-row INSERTs from arrays, [`ROWS`] rows a statement and a transaction: the quickest that Postgres has beside COPY.
pub async fn postgres(url: &str, work: &Workload, table: Table) -> anyhow::Result<Duration> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(
        "CREATE TABLE events (position BIGINT PRIMARY KEY, id BYTEA, tenant TEXT, sandbox BYTEA, exec BYTEA, type TEXT, \
         time BIGINT, stream SMALLINT, byte_offset BIGINT, header BYTEA, body BYTEA, hash BYTEA)",
    )
    .execute(&mut connection)
    .await?;
    if table == Table::Indexed {
        for index in INDEXES {
            sqlx::query(index).execute(&mut connection).await?;
        }
    }
    let sql: Arc<str> = format!(
        "INSERT INTO events ({COLUMNS}) SELECT * FROM UNNEST($1::bigint[], $2::bytea[], $3::text[], $4::bytea[], \
         $5::bytea[], $6::text[], $7::bigint[], $8::smallint[], $9::bigint[], $10::bytea[], $11::bytea[], $12::bytea[])"
    )
    .into();
    let began = Instant::now();
    for rows in work.rows.chunks(ROWS) {
        insert_postgres(&mut connection, Arc::clone(&sql), rows).await?;
    }
    let took = began.elapsed();
    connection.close().await?;
    Ok(took)
}

async fn insert_postgres(
    connection: &mut PgConnection,
    sql: Arc<str>,
    rows: &[AppendEvent],
) -> anyhow::Result<()> {
    macro_rules! column {
        ($row:ident => $value:expr) => {
            rows.iter().map(|$row| $value).collect::<Vec<_>>()
        };
    }
    sqlx::query(AssertSqlSafe(sql))
        .bind(column!(row => row.frame.position.0 as i64))
        .bind(column!(row => &row.id.as_bytes()[..]))
        .bind(column!(row => row.tenant.as_str()))
        .bind(column!(row => row.sandbox.as_ref().map(|id| &id.as_bytes()[..])))
        .bind(column!(row => row.exec.as_ref().map(|id| &id.as_bytes()[..])))
        .bind(column!(row => row.type_name))
        .bind(column!(row => row.time_us))
        .bind(column!(row => row.body.as_ref().map(|body| body.stream.code())))
        .bind(column!(row => offset(row)))
        .bind(column!(row => &row.frame.header[..]))
        .bind(column!(row => (!row.frame.body.is_empty()).then_some(&row.frame.body[..])))
        .bind(column!(row => &row.hash.0[..]))
        .execute(connection)
        .await?;
    Ok(())
}
