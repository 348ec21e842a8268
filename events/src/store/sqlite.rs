use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Pool, Sqlite, SqliteConnection};

use super::sql::{Dialect, SqlStore, failed, pieces, searchable, signed, state_json, stream_code};
use super::{AppendBatch, AppendError, AppendEvent, EventStore, OpenError, StoreError, migrations};
use crate::{ExecState, SandboxState};

/// How long a writer waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
const READERS: u32 = 4;
/// How many rows one statement adds. Few fixed sizes, so that their prepared statements are reused; 3 is a short exec.
const EVENT_ROWS: &[usize] = &[128, 32, 8, 4, 3, 2, 1];
const EXEC_ROWS: &[usize] = &[32, 4, 1];

pub(super) async fn open(path: &Path) -> Result<Arc<dyn EventStore>, OpenError> {
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
    {
        tokio::fs::create_dir_all(directory)
            .await
            .map_err(OpenError::Directory)?;
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.clone())
        .await
        .map_err(|error| OpenError::Connect(error.into()))?;
    migrations::sqlite()
        .run(&writer)
        .await
        .map_err(|error| OpenError::Migrate(error.into()))?;
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.create_if_missing(false).read_only(true))
        .await
        .map_err(|error| OpenError::Connect(error.into()))?;
    Ok(Arc::new(SqlStore { writer, readers }))
}

#[async_trait]
impl Dialect for Sqlite {
    async fn append(writer: &Pool<Self>, batch: &AppendBatch) -> Result<(), AppendError> {
        let failed = failed::<Self>("append events");
        let mut transaction = writer.begin_with("BEGIN IMMEDIATE").await.map_err(&failed)?;
        let moved = sqlx::query(
            "UPDATE head SET position = ?1, stream_sequence = ?2, incarnation = ?3 WHERE position = ?4",
        )
        .bind(signed(batch.end().0))
        .bind(signed(batch.stream.sequence))
        .bind(batch.stream.incarnation.as_str())
        .bind(signed(batch.after.0))
        .execute(&mut *transaction)
        .await
        .map_err(&failed)?;
        if moved.rows_affected() == 0 {
            transaction.rollback().await.map_err(&failed)?;
            return Err(AppendError::Conflict);
        }
        for piece in pieces(batch.events.len(), EVENT_ROWS) {
            insert_events(&mut transaction, &batch.events[piece])
                .await
                .map_err(&failed)?;
        }
        for sandbox in &batch.sandboxes {
            put_sandbox(&mut transaction, sandbox).await?;
        }
        for piece in pieces(batch.execs.len(), EXEC_ROWS) {
            put_execs(&mut transaction, &batch.execs[piece]).await?;
        }
        for change in &batch.templates {
            let template = change.template.as_ref().map(state_json).transpose()?;
            sqlx::query(
                "INSERT INTO templates (tenant, name, template) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET template = excluded.template",
            )
            .bind(change.tenant.as_str())
            .bind(searchable(&change.name))
            .bind(template)
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        }
        for (tenant, hash) in &batch.chain_heads {
            sqlx::query(
                "INSERT INTO chain_heads (tenant, position, hash) VALUES (?1, ?2, ?3)
                 ON CONFLICT DO UPDATE SET position = excluded.position, hash = excluded.hash",
            )
            .bind(tenant.as_str())
            .bind(signed(batch.end().0))
            .bind(&hash.0[..])
            .execute(&mut *transaction)
            .await
            .map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(())
    }

    fn is_transient(error: &dyn sqlx::error::DatabaseError) -> bool {
        let code = error
            .code()
            .and_then(|code| code.parse::<i32>().ok())
            .unwrap_or_default();
        // The lower byte is the primary code: BUSY, LOCKED, NOMEM, IOERR, FULL, CANTOPEN.
        matches!(code & 0xff, 5 | 6 | 7 | 10 | 13 | 14)
    }
}

/// `INSERT ... VALUES (?,?),(?,?) ...` for every number of rows that is used.
fn statements(sizes: &[usize], columns: usize, start: &str, end: &str) -> Vec<(usize, Arc<str>)> {
    let row = format!("({})", vec!["?"; columns].join(","));
    sizes
        .iter()
        .map(|size| {
            (
                *size,
                format!("{start} VALUES {}{end}", vec![row.as_str(); *size].join(",")).into(),
            )
        })
        .collect()
}

fn statement(statements: &[(usize, Arc<str>)], rows: usize) -> AssertSqlSafe<Arc<str>> {
    let sql = statements
        .iter()
        .find(|(size, _)| *size == rows)
        .map(|(_, sql)| Arc::clone(sql));
    AssertSqlSafe(sql.unwrap_or_else(|| "".into()))
}

async fn insert_events(connection: &mut SqliteConnection, events: &[AppendEvent]) -> Result<(), sqlx::Error> {
    static STATEMENTS: LazyLock<Vec<(usize, Arc<str>)>> = LazyLock::new(|| {
        let start = "INSERT INTO events (position, id, tenant, sandbox, exec, type, time, stream, byte_offset, \
                     header, body, hash)";
        statements(EVENT_ROWS, 12, start, "")
    });
    let mut query = sqlx::query(statement(&STATEMENTS, events.len()));
    for event in events {
        let body = &event.frame.body;
        query = query
            .bind(signed(event.frame.position.0))
            .bind(&event.id.as_bytes()[..])
            .bind(event.tenant.as_str())
            .bind(event.sandbox.as_ref().map(|id| &id.as_bytes()[..]))
            .bind(event.exec.as_ref().map(|id| &id.as_bytes()[..]))
            .bind(event.type_name)
            .bind(event.time_us)
            .bind(event.output.map(|(stream, _)| stream_code(stream)))
            .bind(event.output.map(|(_, offset)| signed(offset)))
            .bind(&event.frame.header[..])
            .bind((!body.is_empty()).then_some(&body[..]))
            .bind(&event.hash.0[..]);
    }
    query.execute(connection).await?;
    Ok(())
}

async fn put_sandbox(connection: &mut SqliteConnection, state: &SandboxState) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO sandboxes (id, tenant, owner, provider, node, ended, expires_at, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT DO UPDATE SET node = excluded.node, ended = excluded.ended,
             expires_at = excluded.expires_at, state = excluded.state",
    )
    .bind(&state.id.as_bytes()[..])
    .bind(state.tenant.as_str())
    .bind(state.spec.owner.as_deref().map(searchable))
    .bind(state.spec.provider.as_str())
    .bind(state.node().map(|node| node.as_str()))
    .bind(i16::from(state.is_terminal()))
    .bind(state.expires_at.timestamp_micros())
    .bind(state_json(state)?)
    .execute(connection)
    .await
    .map_err(failed::<Sqlite>("append events"))?;
    Ok(())
}

async fn put_execs(connection: &mut SqliteConnection, states: &[ExecState]) -> Result<(), StoreError> {
    static STATEMENTS: LazyLock<Vec<(usize, Arc<str>)>> = LazyLock::new(|| {
        let start = "INSERT INTO execs (id, tenant, sandbox, ended, started_at, state)";
        let end = " ON CONFLICT DO UPDATE SET ended = excluded.ended, state = excluded.state";
        statements(EXEC_ROWS, 6, start, end)
    });
    let mut query = sqlx::query(statement(&STATEMENTS, states.len()));
    for state in states {
        query = query
            .bind(&state.id.as_bytes()[..])
            .bind(state.tenant.as_str())
            .bind(&state.sandbox.as_bytes()[..])
            .bind(i16::from(state.end.is_some()))
            .bind(state.started_at.timestamp_micros())
            .bind(state_json(state)?);
    }
    query
        .execute(connection)
        .await
        .map_err(failed::<Sqlite>("append events"))?;
    Ok(())
}
