//! Looking after a database from outside: copies, checks, room. For `stacyvm db`.

use std::path::{Path, PathBuf};

use events::Position;
use serde::Serialize;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a database could not be looked after.
#[derive(Debug, thiserror::Error)]
pub enum UpkeepError {
    /// It is Postgres, which has its own tools.
    #[error("this is for SQLite; for Postgres use {tool}")]
    NotSqlite {
        /// Which tool does it.
        tool: &'static str,
    },
    /// The file is no database of StacyVM, or not whole.
    #[error("{path} is damaged: {what}", path = path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The database does not answer, or refuses.
    #[error("could not {operation}")]
    Database {
        /// What was tried.
        operation: &'static str,
        /// What it said.
        #[source]
        source: Source,
    },
    /// A file cannot be read or written.
    #[error("{path}", path = path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// What a database that was checked holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The position of the newest event.
    pub head: Position,
    /// The newest message of the transport that is recorded.
    pub stream_sequence: u64,
    /// How many events are there.
    pub events: u64,
    /// The size of the file.
    pub bytes: u64,
}

/// What takes how much.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StoreStats {
    /// Each table with its indexes, the largest first.
    pub tables: Vec<TableStats>,
    /// All of it, free space included.
    pub bytes: u64,
    /// What is free in the file and will be used again. SQLite only.
    pub free_bytes: u64,
    /// How many events.
    pub events: u64,
    /// How many pieces of output and input.
    pub bodies: u64,
    /// How many bytes those were.
    pub body_bytes: u64,
    /// How many bytes they are as they are kept.
    pub stored_body_bytes: u64,
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableStats {
    /// Its name.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

impl StoreStats {
    /// How many bytes the whole database has for each byte of output and input.
    pub fn bytes_per_body_byte(&self) -> Option<f64> {
        (self.body_bytes > 0).then(|| (self.bytes - self.free_bytes) as f64 / self.body_bytes as f64)
    }
}

/// The file of an SQLite database.
pub fn sqlite_path<'u>(url: &'u str, tool: &'static str) -> Result<&'u Path, UpkeepError> {
    let path = url.strip_prefix("sqlite:").ok_or(UpkeepError::NotSqlite { tool })?;
    Ok(Path::new(path.strip_prefix("//").unwrap_or(path)))
}

fn database(operation: &'static str) -> impl Fn(sqlx::Error) -> UpkeepError {
    move |error| UpkeepError::Database { operation, source: error.into() }
}

fn file(path: &Path) -> impl Fn(std::io::Error) -> UpkeepError + '_ {
    move |source| UpkeepError::File { path: path.to_owned(), source }
}

async fn open(path: &Path, read_only: bool) -> Result<SqliteConnection, UpkeepError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .read_only(read_only)
        .busy_timeout(std::time::Duration::from_secs(10));
    SqliteConnection::connect_with(&options).await.map_err(database("open the database"))
}

async fn number(
    connection: &mut SqliteConnection,
    sql: &'static str,
    operation: &'static str,
) -> Result<u64, UpkeepError> {
    let row = sqlx::query(sql).fetch_one(connection).await.map_err(database(operation))?;
    let number: i64 = row.try_get(0).map_err(database(operation))?;
    Ok(number.unsigned_abs())
}

/// Copies an SQLite database into a new file, as it is at one moment, also while it is written to; then checks the copy.
pub async fn backup(url: &str, target: &Path) -> Result<Checked, UpkeepError> {
    let source = sqlite_path(url, "pg_dump")?;
    let partial = with_suffix(target, ".partial");
    if target.exists() {
        let source = std::io::Error::from(std::io::ErrorKind::AlreadyExists);
        return Err(file(target)(source));
    }
    // Of an earlier try that was cut off.
    remove(&partial)?;
    let mut connection = open(source, true).await?;
    let text = partial.to_string_lossy().replace('\'', "''");
    sqlx::query(AssertSqlSafe(format!("VACUUM INTO '{text}'")))
        .execute(&mut connection)
        .await
        .map_err(database("copy the database"))?;
    connection.close().await.map_err(database("close the database"))?;
    sync(&partial)?;
    let checked = check(&partial).await?;
    std::fs::rename(&partial, target).map_err(file(target))?;
    if let Some(directory) = target.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        sync(directory)?;
    }
    Ok(checked)
}

/// Checks that a file is a whole database of StacyVM whose head is its newest event.
pub async fn check(path: &Path) -> Result<Checked, UpkeepError> {
    let damaged = |what: &str| UpkeepError::Damaged { path: path.to_owned(), what: what.to_owned() };
    let bytes = std::fs::metadata(path).map_err(file(path))?.len();
    let mut connection = open(path, true).await?;
    let found: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check(1)")
        .fetch_all(&mut connection)
        .await
        .map_err(|error| damaged(&error.to_string()))?;
    if found != ["ok"] {
        return Err(damaged(found.first().map_or("no answer", String::as_str)));
    }
    let head =
        sqlx::query("SELECT position, stream_sequence FROM head").fetch_optional(&mut connection).await;
    let Ok(Some(head)) = head else { return Err(damaged("it is no database of StacyVM")) };
    let column = |index| head.try_get::<i64, _>(index).map(i64::unsigned_abs);
    let position = column(0).map_err(database("read the head"))?;
    let stream_sequence = column(1).map_err(database("read the head"))?;
    let newest =
        number(&mut connection, "SELECT COALESCE(max(position), 0) FROM events", "read the newest event")
            .await?;
    let floor = number(
        &mut connection,
        "SELECT floor FROM retention WHERE class = 'lifecycle'",
        "read the floor of the log",
    )
    .await?;
    if newest != position && position > floor {
        return Err(damaged(&format!("its head is {position}, its newest event {newest}")));
    }
    let events = number(&mut connection, "SELECT count(*) FROM events", "count events").await?;
    connection.close().await.map_err(database("close the database"))?;
    Ok(Checked { head: Position(position), stream_sequence, events, bytes })
}

/// Gives free space in the file of an SQLite database back. Nobody else may use it meanwhile. The size before and after.
pub async fn compact(url: &str) -> Result<(u64, u64), UpkeepError> {
    let path = sqlite_path(url, "VACUUM FULL")?;
    let size = || std::fs::metadata(path).map(|data| data.len()).map_err(file(path));
    let before = size()?;
    let mut connection = open(path, false).await?;
    for sql in ["VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        sqlx::query(sql).execute(&mut connection).await.map_err(database("compact the database"))?;
    }
    connection.close().await.map_err(database("close the database"))?;
    Ok((before, size()?))
}

/// What takes how much. Reads all of an SQLite database.
pub async fn stats(url: &str) -> Result<StoreStats, UpkeepError> {
    if url.starts_with("sqlite:") { sqlite_stats(url).await } else { postgres_stats(url).await }
}

const BODIES: &str = "SELECT count(*), CAST(COALESCE(sum(length), 0) AS BIGINT), \
                      CAST(COALESCE(sum(length(body)), 0) AS BIGINT) FROM bodies";

async fn sqlite_stats(url: &str) -> Result<StoreStats, UpkeepError> {
    const OPERATION: &str = "measure the database";
    let mut connection = open(sqlite_path(url, "")?, true).await?;
    let tables = sqlx::query(
        "SELECT m.tbl_name, sum(d.pgsize) AS bytes FROM dbstat d JOIN sqlite_schema m ON m.name = d.name
         WHERE d.aggregate = TRUE GROUP BY m.tbl_name ORDER BY bytes DESC",
    )
    .fetch_all(&mut connection)
    .await
    .map_err(database(OPERATION))?;
    let tables = tables
        .iter()
        .map(|row| {
            let bytes: i64 = row.try_get(1)?;
            Ok(TableStats { name: row.try_get(0)?, bytes: bytes.unsigned_abs() })
        })
        .collect::<Result<_, _>>()
        .map_err(database(OPERATION))?;
    let page = number(&mut connection, "PRAGMA page_size", OPERATION).await?;
    let bytes = page * number(&mut connection, "PRAGMA page_count", OPERATION).await?;
    let free_bytes = page * number(&mut connection, "PRAGMA freelist_count", OPERATION).await?;
    let events = number(&mut connection, "SELECT count(*) FROM events", OPERATION).await?;
    let bodies = sqlx::query(BODIES).fetch_one(&mut connection).await.map_err(database(OPERATION))?;
    let column = |index| bodies.try_get::<i64, _>(index).map(i64::unsigned_abs).map_err(database(OPERATION));
    Ok(StoreStats {
        tables,
        bytes,
        free_bytes,
        events,
        bodies: column(0)?,
        body_bytes: column(1)?,
        stored_body_bytes: column(2)?,
    })
}

async fn postgres_stats(url: &str) -> Result<StoreStats, UpkeepError> {
    const OPERATION: &str = "measure the database";
    let failed = database(OPERATION);
    let mut connection = PgConnection::connect(url).await.map_err(&failed)?;
    // A partition counts as the table that it is a part of.
    let rows = sqlx::query(
        "SELECT COALESCE(p.relname, c.relname)::text, sum(pg_total_relation_size(c.oid))::bigint AS bytes
         FROM pg_class c
         JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = current_schema()
         LEFT JOIN pg_inherits i ON i.inhrelid = c.oid LEFT JOIN pg_class p ON p.oid = i.inhparent
         WHERE c.relkind = 'r' GROUP BY 1 ORDER BY 2 DESC",
    )
    .fetch_all(&mut connection)
    .await
    .map_err(&failed)?;
    let mut tables = Vec::with_capacity(rows.len());
    for row in &rows {
        let bytes: i64 = row.try_get(1).map_err(&failed)?;
        tables.push(TableStats { name: row.try_get(0).map_err(&failed)?, bytes: bytes.unsigned_abs() });
    }
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM events")
        .fetch_one(&mut connection)
        .await
        .map_err(&failed)?;
    let bodies = sqlx::query(BODIES).fetch_one(&mut connection).await.map_err(&failed)?;
    let column = |index| bodies.try_get::<i64, _>(index).map(i64::unsigned_abs).map_err(database(OPERATION));
    Ok(StoreStats {
        bytes: tables.iter().map(|table| table.bytes).sum(),
        tables,
        free_bytes: 0,
        events: events.unsigned_abs(),
        bodies: column(0)?,
        body_bytes: column(1)?,
        stored_body_bytes: column(2)?,
    })
}

/// The same path with something added to the name of the file.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn remove(path: &Path) -> Result<(), UpkeepError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(file(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes sure that a file or a directory is on the disk.
fn sync(path: &Path) -> Result<(), UpkeepError> {
    std::fs::File::open(path).and_then(|opened| opened.sync_all()).map_err(file(path))
}
