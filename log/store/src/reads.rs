//! Every read, for both databases. The SQL is plain enough to be the same text for both, so that there is one query to
//! get right and not two.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{
    ChainHash, ChainPoint, EventId, ExecId, ExecState, Frame, Gone, MissingBody, OutputStream, Position,
    RetentionClass, SandboxId, SandboxState, Template, TenantId, WebhookId, WebhookState,
};
use futures::TryStreamExt;
use record::{
    AppendBatch, AppendError, AuditFilter, AuditRow, ChainedFrame, DataKey, Encoding, EventFilter,
    EventStore, ExecPage, Floor, Head, OutputChunk, Protection, Shown, ShownRow, StoreError, StoredBody,
    signed,
};
use serde::de::DeserializeOwned;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ColumnIndex, Database, Decode, Encode, Executor, IntoArguments, Pool, Row, Type};
use uuid::Uuid;

use super::chain;
use super::keys::{Kept, open_bodies};
use super::sql::{Dialect, SqlStore, damaged, failed, pieces, stream_code};

/// The greatest number of pieces that one read of output returns.
const OUTPUT_PIECES: i64 = 4_096;
/// How many ids one query looks up. Fixed, so that its prepared statement is reused.
const ID_CHUNKS: [usize; 3] = [512, 32, 1];

pub(super) fn position(value: i64) -> Position {
    Position(u64::try_from(value).unwrap_or_default())
}

fn sandbox_id(bytes: &[u8]) -> Result<SandboxId, StoreError> {
    let bytes = bytes.try_into().map_err(|_| damaged("read events", "an id is not 16 bytes long"))?;
    Ok(SandboxId::from_bytes(bytes))
}

pub(super) fn chain_hash(bytes: &[u8]) -> Result<ChainHash, StoreError> {
    bytes.try_into().map(ChainHash).map_err(|_| damaged("read the hash chain", "a hash is not 32 bytes long"))
}

#[async_trait::async_trait]
impl<DB> EventStore for SqlStore<DB>
where
    DB: Dialect,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'q> i64: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> i16: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> &'q [u8]: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> &'q str: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> Option<&'q [u8]>: Decode<'q, DB>,
    for<'q> Option<&'q str>: Decode<'q, DB>,
    for<'q> Option<i64>: Decode<'q, DB>,
    for<'q> Option<i16>: Decode<'q, DB>,
    usize: ColumnIndex<DB::Row>,
{
    async fn head(&self) -> Result<Head, StoreError> {
        let failed = failed::<DB>("read the head of the log");
        let row = sqlx::query::<DB>("SELECT position, stream_sequence, incarnation FROM head")
            .fetch_one(&self.readers)
            .await
            .map_err(&failed)?;
        Ok(Head {
            position: position(row.try_get(0).map_err(&failed)?),
            stream_sequence: position(row.try_get(1).map_err(&failed)?).0,
            incarnation: row.try_get::<&str, _>(2).map_err(&failed)?.to_owned(),
        })
    }

    async fn clock(&self) -> Result<Option<DateTime<Utc>>, StoreError> {
        DB::clock(self).await
    }

    async fn append(&self, batch: &AppendBatch) -> Result<(), AppendError> {
        DB::append(self, batch).await
    }

    async fn read(
        &self,
        filter: &EventFilter,
        after: Position,
        limit: u32,
    ) -> Result<Vec<Frame>, StoreError> {
        let sql = filtered(EVENTS, filter);
        let query = sqlx::query::<DB>(AssertSqlSafe(sql)).bind(signed(after.0)).bind(i64::from(limit));
        let query = bind_filter(query, filter);
        let failed = failed::<DB>("read events");
        let mut frames = Vec::new();
        let mut bodies = Vec::new();
        let mut floor = None;
        {
            let mut rows = query.fetch(&self.readers);
            while let Some(row) = rows.try_next().await.map_err(&failed)? {
                let at = position(row.try_get(0).map_err(&failed)?);
                let header: &[u8] = row.try_get(1).map_err(&failed)?;
                if floor.is_none() {
                    floor = Some(position(row.try_get(6).map_err(&failed)?));
                }
                if let Some(length) = row.try_get::<Option<i64>, _>(2).map_err(&failed)? {
                    let sandbox: Option<&[u8]> = row.try_get(3).map_err(&failed)?;
                    bodies.push((
                        frames.len(),
                        Kept {
                            position: at,
                            sandbox: sandbox.map(sandbox_id).transpose()?,
                            length: position(length).0,
                            stored: stored::<DB>(&row, 4).map_err(&failed)?,
                        },
                    ));
                }
                let header = header.to_vec().into();
                frames.push(Frame { position: at, header, body: Bytes::new(), missing: None });
            }
        }
        self.refuse_trimmed(filter, after, frames.first(), floor).await?;
        let (indexes, kept): (Vec<usize>, Vec<Kept>) = bodies.into_iter().unzip();
        let lengths: Vec<u64> = kept.iter().map(|body| body.length).collect();
        let opened = open_bodies(self, self.master_key.as_ref(), kept).await?;
        for ((index, length), body) in indexes.into_iter().zip(lengths).zip(opened) {
            match body {
                Ok(body) => frames[index].body = body,
                Err(why) => frames[index].missing = Some(MissingBody { why, length }),
            }
        }
        Ok(frames)
    }

    async fn read_headers(
        &self,
        filter: &EventFilter,
        after: Position,
        limit: u32,
    ) -> Result<Vec<Frame>, StoreError> {
        let failed = failed::<DB>("read events");
        let sql = filtered(HEADERS, filter);
        let query = sqlx::query::<DB>(AssertSqlSafe(sql)).bind(signed(after.0)).bind(i64::from(limit));
        let mut frames = Vec::new();
        let mut floor = None;
        {
            let mut rows = bind_filter(query, filter).fetch(&self.readers);
            while let Some(row) = rows.try_next().await.map_err(&failed)? {
                let header: &[u8] = row.try_get(1).map_err(&failed)?;
                if floor.is_none() {
                    floor = Some(position(row.try_get(2).map_err(&failed)?));
                }
                frames.push(Frame {
                    position: position(row.try_get(0).map_err(&failed)?),
                    header: header.to_vec().into(),
                    body: Bytes::new(),
                    missing: None,
                });
            }
        }
        self.refuse_trimmed(filter, after, frames.first(), floor).await?;
        Ok(frames)
    }

    async fn position_at(&self, time: DateTime<Utc>) -> Result<Position, StoreError> {
        let failed = failed::<DB>("find a position");
        let wanted = time.timestamp_micros();
        let row = sqlx::query::<DB>(
            "SELECT (SELECT position FROM head), COALESCE((SELECT position FROM events ORDER BY position LIMIT 1), 0)",
        )
        .fetch_one(&self.readers)
        .await
        .map_err(&failed)?;
        let head = position(row.try_get(0).map_err(&failed)?).0;
        let first = position(row.try_get(1).map_err(&failed)?).0;
        // Halves what is in question: the first event of the upper half says which half it is.
        let (mut low, mut high) = (first.max(1), head + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let row =
                sqlx::query::<DB>("SELECT time FROM events WHERE position >= $1 ORDER BY position LIMIT 1")
                    .bind(signed(middle))
                    .fetch_optional(&self.readers)
                    .await
                    .map_err(&failed)?;
            let at = row.map(|row| row.try_get::<i64, _>(0)).transpose().map_err(&failed)?;
            if at.is_none_or(|at| at >= wanted) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(Position(low))
    }

    async fn read_chain(
        &self,
        tenant: Option<&TenantId>,
        after: Position,
        up_to: Position,
        limit: u32,
    ) -> Result<Vec<ChainedFrame>, StoreError> {
        chain::read_chain(self, tenant, (after, up_to), limit).await
    }

    async fn next_shown(&self, kind: Shown, after: Uuid) -> Result<Option<Uuid>, StoreError> {
        chain::next_shown(self, kind, after).await
    }

    async fn shown(&self, kind: Shown, id: Uuid) -> Result<Option<ShownRow>, StoreError> {
        chain::shown(self, kind, id).await
    }

    async fn read_audit(
        &self,
        filter: &AuditFilter,
        after: Position,
        up_to: Position,
        backwards: bool,
        limit: u32,
    ) -> Result<Vec<AuditRow>, StoreError> {
        chain::read_audit(self, filter, (after, up_to), backwards, limit).await
    }

    async fn chain_points(&self) -> Result<(Position, Vec<ChainPoint>), StoreError> {
        chain::chain_points(self).await
    }

    async fn output_start(
        &self,
        exec: ExecId,
        stdout_offset: u64,
        stderr_offset: u64,
    ) -> Result<Option<Position>, StoreError> {
        let failed = failed::<DB>("find output");
        let mut first: Option<Position> = None;
        for (stream, offset) in [(OutputStream::Stdout, stdout_offset), (OutputStream::Stderr, stderr_offset)]
        {
            let row = sqlx::query::<DB>(OUTPUT_START)
                .bind(&exec.as_bytes()[..])
                .bind(stream_code(stream))
                .bind(signed(offset))
                .fetch_optional(&self.readers)
                .await
                .map_err(&failed)?;
            if let Some(row) = row {
                let found = position(row.try_get(0).map_err(&failed)?);
                first = Some(first.map_or(found, |first| first.min(found)));
            }
        }
        Ok(first)
    }

    async fn output(
        &self,
        exec: ExecId,
        stream: OutputStream,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Vec<OutputChunk>, StoreError> {
        let failed = failed::<DB>("read output");
        // Output has no holes and no overlaps, so the offsets alone say which events hold the wanted bytes.
        let end = offset.saturating_add(max_bytes.max(1) as u64);
        let rows = sqlx::query::<DB>(OUTPUT)
            .bind(&exec.as_bytes()[..])
            .bind(stream_code(stream))
            .bind(signed(offset))
            .bind(signed(end))
            .bind(OUTPUT_PIECES)
            .fetch_all(&self.readers)
            .await
            .map_err(&failed)?;
        let mut starts = Vec::with_capacity(rows.len());
        let mut kept = Vec::with_capacity(rows.len());
        let mut sandbox = None;
        for row in &rows {
            let at = position(row.try_get(0).map_err(&failed)?);
            let stored = stored::<DB>(row, 3).map_err(&failed)?;
            if sandbox.is_none() && stored.as_ref().is_some_and(|stored| stored.encoding.is_sealed()) {
                sandbox = self.exec(exec).await?.map(|state| state.sandbox);
            }
            starts.push((at, position(row.try_get(1).map_err(&failed)?).0));
            let length = position(row.try_get(2).map_err(&failed)?).0;
            kept.push(Kept { position: at, sandbox, length, stored });
        }
        let mut chunks: Vec<OutputChunk> = Vec::with_capacity(rows.len());
        let mut next = offset;
        for ((at, start), body) in
            starts.into_iter().zip(open_bodies(self, self.master_key.as_ref(), kept).await?)
        {
            let gone = match body {
                Ok(body) if start <= next => {
                    let within = |goal: u64| {
                        usize::try_from(goal.saturating_sub(start)).unwrap_or(usize::MAX).min(body.len())
                    };
                    let (skip, stop) = (within(offset), within(end));
                    next = start + stop as u64;
                    let bytes = body.slice(skip..stop);
                    chunks.push(OutputChunk { offset: start + skip as u64, bytes, position: at });
                    continue;
                }
                Ok(_) => StoreError::Gone { why: Gone::Expired, next_offset: start },
                Err(why) => {
                    // Nothing of what follows can be read either: it is the same key.
                    let recorded = self.exec(exec).await?.map(|state| state.recorded(stream));
                    StoreError::Gone { why, next_offset: recorded.unwrap_or_default().max(next) }
                }
            };
            if chunks.is_empty() {
                return Err(gone);
            }
            break;
        }
        if chunks.is_empty()
            && let Some(state) = self.exec(exec).await?
            && offset < state.recorded(stream)
        {
            return Err(self.gone(&state, stream, offset).await?);
        }
        Ok(chunks)
    }

    async fn sandbox(&self, id: SandboxId) -> Result<Option<SandboxState>, StoreError> {
        let query = sqlx::query::<DB>("SELECT state FROM sandboxes WHERE id = $1").bind(&id.as_bytes()[..]);
        Ok(states(query, &self.readers, "read a sandbox").await?.pop())
    }

    async fn sandbox_of(&self, tenant: &TenantId, id: SandboxId) -> Result<Option<SandboxState>, StoreError> {
        let query = sqlx::query::<DB>("SELECT state FROM sandboxes WHERE id = $1 AND tenant = $2")
            .bind(&id.as_bytes()[..])
            .bind(tenant.as_str());
        Ok(states(query, &self.readers, "read a sandbox").await?.pop())
    }

    async fn sandboxes(
        &self,
        tenant: &TenantId,
        before: Option<SandboxId>,
        limit: u32,
    ) -> Result<Vec<SandboxState>, StoreError> {
        // Past everything, where no page came before.
        let before = before.map_or([0xff; 16], |id| *id.as_bytes());
        let query = sqlx::query::<DB>(
            "SELECT state FROM sandboxes WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
        )
        .bind(tenant.as_str())
        .bind(&before[..])
        .bind(i64::from(limit));
        states(query, &self.readers, "read the sandboxes of a tenant").await
    }

    async fn live_sandboxes(&self) -> Result<(Position, Vec<SandboxState>), StoreError> {
        const SQL: &str =
            "SELECT h.position, s.state FROM head h LEFT JOIN sandboxes s ON s.ended = 0 ORDER BY s.id";
        self.states_at_head(SQL, "read live sandboxes").await
    }

    async fn exec(&self, id: ExecId) -> Result<Option<ExecState>, StoreError> {
        let query = sqlx::query::<DB>("SELECT state FROM execs WHERE id = $1").bind(&id.as_bytes()[..]);
        Ok(states(query, &self.readers, "read an exec").await?.pop())
    }

    async fn exec_of(&self, tenant: &TenantId, id: ExecId) -> Result<Option<ExecState>, StoreError> {
        let query = sqlx::query::<DB>("SELECT state FROM execs WHERE id = $1 AND tenant = $2")
            .bind(&id.as_bytes()[..])
            .bind(tenant.as_str());
        Ok(states(query, &self.readers, "read an exec").await?.pop())
    }

    async fn execs(&self, sandbox: SandboxId, page: &ExecPage) -> Result<Vec<ExecState>, StoreError> {
        // Past everything, where no page came before.
        let (at, id) = match &page.before {
            Some((at, id)) => (at.timestamp_micros(), *id.as_bytes()),
            None => (i64::MAX, [0xff; 16]),
        };
        let (least, most) = match page.ended {
            None => (0, 1),
            Some(ended) => (i16::from(ended), i16::from(ended)),
        };
        let query = sqlx::query::<DB>(
            "SELECT state FROM execs WHERE sandbox = $1 AND (started_at, id) < ($2, $3) \
             AND ended >= $4 AND ended <= $5 ORDER BY started_at DESC, id DESC LIMIT $6",
        )
        .bind(&sandbox.as_bytes()[..])
        .bind(at)
        .bind(&id[..])
        .bind(least)
        .bind(most)
        .bind(i64::from(page.limit));
        states(query, &self.readers, "read the execs of a sandbox").await
    }

    async fn live_execs(&self) -> Result<Vec<ExecState>, StoreError> {
        let query = sqlx::query::<DB>("SELECT state FROM execs WHERE ended = 0 ORDER BY id");
        states(query, &self.readers, "read live execs").await
    }

    async fn known_ids(&self, ids: &[EventId]) -> Result<Vec<EventId>, StoreError> {
        let failed = failed::<DB>("look up event ids");
        let mut known = Vec::new();
        for piece in pieces(ids.len(), &ID_CHUNKS) {
            let sql = format!(
                "SELECT id FROM events WHERE type <> 'exec.output' AND id IN ({})",
                placeholders(1, piece.len())
            );
            let mut query = sqlx::query::<DB>(AssertSqlSafe(sql));
            for id in &ids[piece] {
                query = query.bind(&id.as_bytes()[..]);
            }
            for row in query.fetch_all(&self.readers).await.map_err(&failed)? {
                let id: &[u8] = row.try_get(0).map_err(&failed)?;
                let id =
                    id.try_into().map_err(|_| damaged("look up event ids", "an id is not 16 bytes long"))?;
                known.push(EventId::from_bytes(id));
            }
        }
        Ok(known)
    }

    async fn templates(&self, tenant: &TenantId) -> Result<Vec<Template>, StoreError> {
        let query = sqlx::query::<DB>(
            "SELECT template FROM templates WHERE tenant = $1 AND template IS NOT NULL ORDER BY name",
        )
        .bind(tenant.as_str());
        states(query, &self.readers, "read templates").await
    }

    async fn all_templates(&self) -> Result<Vec<(TenantId, Template)>, StoreError> {
        const OPERATION: &str = "read templates";
        let failed = failed::<DB>(OPERATION);
        let rows = sqlx::query::<DB>(
            "SELECT tenant, template FROM templates WHERE template IS NOT NULL ORDER BY tenant, name",
        )
        .fetch_all(&self.readers)
        .await
        .map_err(&failed)?;
        rows.iter()
            .map(|row| {
                let tenant: &str = row.try_get(0).map_err(&failed)?;
                let template: &str = row.try_get(1).map_err(&failed)?;
                let tenant = tenant.parse().map_err(|error| damaged(OPERATION, error))?;
                let template = serde_json::from_str(template).map_err(|error| damaged(OPERATION, error))?;
                Ok((tenant, template))
            })
            .collect()
    }

    async fn data_keys(&self, sandboxes: &[SandboxId]) -> Result<Vec<DataKey>, StoreError> {
        let failed = failed::<DB>("read keys");
        let mut keys = Vec::new();
        for piece in pieces(sandboxes.len(), &ID_CHUNKS) {
            let wanted = placeholders(1, piece.len());
            let sql = format!("SELECT sandbox, sealed_key FROM data_keys WHERE sandbox IN ({wanted})");
            let mut query = sqlx::query::<DB>(AssertSqlSafe(sql));
            for id in &sandboxes[piece] {
                query = query.bind(&id.as_bytes()[..]);
            }
            for row in query.fetch_all(&self.readers).await.map_err(&failed)? {
                let sealed: Option<&[u8]> = row.try_get(1).map_err(&failed)?;
                keys.push(DataKey {
                    sandbox: sandbox_id(row.try_get(0).map_err(&failed)?)?,
                    sealed: sealed.map(|sealed| sealed.to_vec().into()),
                });
            }
        }
        Ok(keys)
    }

    async fn has_data_keys(&self) -> Result<bool, StoreError> {
        let row = sqlx::query::<DB>("SELECT 1 FROM data_keys LIMIT 1").fetch_optional(&self.readers).await;
        Ok(row.map_err(failed::<DB>("read keys"))?.is_some())
    }

    async fn protection(&self, sandbox: SandboxId) -> Result<Protection, StoreError> {
        let Some(key) = self.data_keys(&[sandbox]).await?.pop() else {
            return Ok(Protection::None);
        };
        // Whatever came after the key was made is sealed under it.
        let open = sqlx::query::<DB>(
            "SELECT 1 FROM execs x JOIN bodies b ON b.exec = x.id
             WHERE x.sandbox = $1 AND b.byte_offset IS NOT NULL AND b.encoding < 2 LIMIT 1",
        )
        .bind(&sandbox.as_bytes()[..])
        .fetch_optional(&self.readers)
        .await
        .map_err(failed::<DB>("look for output that is not sealed"))?;
        Ok(match (key.sealed, open) {
            (None, _) => Protection::Erased,
            (Some(_), Some(_)) => Protection::Partial,
            (Some(_), None) => Protection::Sealed,
        })
    }

    async fn floors(&self) -> Result<Vec<Floor>, StoreError> {
        self.risen_floors().await
    }

    async fn first_live(&self) -> Result<Option<Position>, StoreError> {
        self.first_of_the_living().await
    }

    async fn checkpoints_after(&self, after: Position, limit: u32) -> Result<Vec<Frame>, StoreError> {
        self.checkpoints(after, limit).await
    }

    async fn links_after(&self, after: Position, limit: u32) -> Result<Vec<Frame>, StoreError> {
        self.links(after, limit).await
    }

    async fn drop_some(&self, class: RetentionClass) -> Result<u64, StoreError> {
        let floor = self.risen_floors().await?.into_iter().find(|floor| floor.class == class);
        match floor {
            Some(floor) => DB::drop_some(self, class, floor.up_to).await,
            None => Ok(0),
        }
    }

    async fn tidy(&self) -> Result<(), StoreError> {
        DB::tidy(self).await
    }

    async fn webhook(&self, id: WebhookId) -> Result<Option<WebhookState>, StoreError> {
        let query = sqlx::query::<DB>("SELECT state FROM webhooks WHERE id = $1 AND state IS NOT NULL")
            .bind(&id.as_bytes()[..]);
        Ok(states(query, &self.readers, "read a webhook").await?.pop())
    }

    async fn webhooks(&self) -> Result<(Position, Vec<WebhookState>), StoreError> {
        const SQL: &str = "SELECT h.position, w.state FROM head h LEFT JOIN webhooks w ON w.state IS NOT NULL ORDER BY w.id";
        self.states_at_head(SQL, "read webhooks").await
    }

    async fn close(&self) {
        self.readers.close().await;
        // The last connection to go writes what is in the write-ahead log into the database itself.
        self.writer.close().await;
    }

    async fn chain_head(&self, tenant: &TenantId) -> Result<ChainHash, StoreError> {
        let failed = failed::<DB>("read the hash chain");
        let row = sqlx::query::<DB>("SELECT hash FROM chain_heads WHERE tenant = $1")
            .bind(tenant.as_str())
            .fetch_optional(&self.readers)
            .await
            .map_err(&failed)?;
        match row {
            Some(row) => chain_hash(row.try_get(0).map_err(&failed)?),
            None => Ok(ChainHash::GENESIS),
        }
    }
}

/// The first bytes of a stream that are there after an offset.
const NEXT_OUTPUT: &str = "
SELECT byte_offset FROM bodies WHERE exec = $1 AND stream = $2 AND byte_offset > $3 ORDER BY byte_offset LIMIT 1";

impl<DB> SqlStore<DB>
where
    DB: Dialect,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    DB::Arguments: IntoArguments<DB>,
    for<'q> i64: Encode<'q, DB> + Decode<'q, DB> + Type<DB>,
    for<'q> i16: Encode<'q, DB> + Type<DB>,
    for<'q> &'q [u8]: Encode<'q, DB> + Type<DB>,
    for<'q> &'q str: Decode<'q, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
    Self: EventStore,
{
    /// An error when events that would have been read were dropped.
    async fn refuse_trimmed(
        &self,
        filter: &EventFilter,
        after: Position,
        first: Option<&Frame>,
        floor: Option<Position>,
    ) -> Result<(), StoreError> {
        if first.is_some_and(|first| first.position == after.next()) {
            return Ok(());
        }
        let floor = match floor {
            Some(floor) => floor,
            None => self.lifecycle_floor().await?,
        };
        if after < floor && !self.begins_above(filter).await? {
            return Err(StoreError::Trimmed { floor });
        }
        Ok(())
    }

    /// States with the head that they are true at. One statement sees one snapshot: the two belong together.
    async fn states_at_head<T: DeserializeOwned>(
        &self,
        sql: &'static str,
        operation: &'static str,
    ) -> Result<(Position, Vec<T>), StoreError> {
        let failed = failed::<DB>(operation);
        let rows = sqlx::query::<DB>(sql).fetch_all(&self.readers).await.map_err(&failed)?;
        let mut head = Position::ZERO;
        let mut states = Vec::with_capacity(rows.len());
        for row in &rows {
            head = position(row.try_get(0).map_err(&failed)?);
            if let Some(state) = row.try_get::<Option<&str>, _>(1).map_err(&failed)? {
                states.push(serde_json::from_str(state).map_err(|error| damaged(operation, error))?);
            }
        }
        Ok((head, states))
    }

    async fn lifecycle_floor(&self) -> Result<Position, StoreError> {
        let failed = failed::<DB>("read the floor of the log");
        let row = sqlx::query::<DB>("SELECT floor FROM retention WHERE class = 'lifecycle'")
            .fetch_optional(&self.readers)
            .await
            .map_err(&failed)?;
        row.map_or(Ok(Position::ZERO), |row| Ok(position(row.try_get(0).map_err(&failed)?)))
    }

    /// Whether all that ever matched this filter is still there, because it is about one thing whose first event is.
    async fn begins_above(&self, filter: &EventFilter) -> Result<bool, StoreError> {
        let failed = failed::<DB>("look for the first event");
        let (sql, id) = match (&filter.exec, &filter.sandbox) {
            (Some(exec), _) => {
                ("SELECT type FROM events WHERE exec = $1 ORDER BY position LIMIT 1", exec.as_bytes())
            }
            (None, Some(sandbox)) => {
                ("SELECT type FROM events WHERE sandbox = $1 ORDER BY position LIMIT 1", sandbox.as_bytes())
            }
            (None, None) => return Ok(false),
        };
        let row =
            sqlx::query::<DB>(sql).bind(&id[..]).fetch_optional(&self.readers).await.map_err(&failed)?;
        if let Some(row) = row {
            let first: &str = row.try_get(0).map_err(&failed)?;
            return Ok(BEGINNINGS.contains(&first));
        }
        let known = match (filter.exec, filter.sandbox) {
            (Some(exec), _) => self.exec(exec).await?.is_some(),
            (None, Some(sandbox)) => self.sandbox(sandbox).await?.is_some(),
            (None, None) => true,
        };
        Ok(!known)
    }

    /// What to say of bytes that were recorded and have no row any more.
    async fn gone(
        &self,
        state: &ExecState,
        stream: OutputStream,
        offset: u64,
    ) -> Result<StoreError, StoreError> {
        let failed = failed::<DB>("find output");
        let erased = self.data_keys(&[state.sandbox]).await?.iter().any(|key| key.sealed.is_none());
        if erased {
            return Ok(StoreError::Gone { why: Gone::Erased, next_offset: state.recorded(stream) });
        }
        let row = sqlx::query::<DB>(NEXT_OUTPUT)
            .bind(&state.id.as_bytes()[..])
            .bind(stream_code(stream))
            .bind(signed(offset))
            .fetch_optional(&self.readers)
            .await
            .map_err(&failed)?;
        let next_offset = match row {
            Some(row) => position(row.try_get(0).map_err(&failed)?).0,
            None => state.recorded(stream),
        };
        Ok(StoreError::Gone { why: Gone::Expired, next_offset })
    }
}

/// The types of events that are the first of their sandbox or exec.
const BEGINNINGS: [&str; 4] = ["sandbox.requested", "exec.requested", "exec.started", "exec.failed"];

/// The first event of a stream that ends after an offset: either the last that begins at or before it, or the one after
/// that.
const OUTPUT_START: &str = "
SELECT position FROM bodies
WHERE exec = $1 AND stream = $2
  AND byte_offset >= COALESCE((
      SELECT byte_offset FROM bodies
      WHERE exec = $1 AND stream = $2 AND byte_offset <= $3
      ORDER BY byte_offset DESC LIMIT 1), 0)
  AND byte_offset + length > $3
ORDER BY byte_offset LIMIT 1";

const OUTPUT: &str = "
SELECT position, byte_offset, length, encoding, body FROM bodies
WHERE exec = $1 AND stream = $2
  AND byte_offset >= COALESCE((
      SELECT byte_offset FROM bodies
      WHERE exec = $1 AND stream = $2 AND byte_offset <= $3
      ORDER BY byte_offset DESC LIMIT 1), 0)
  AND byte_offset < $4
  AND byte_offset + length > $3
ORDER BY byte_offset LIMIT $5";

/// Whole events. The second bound tells Postgres which partitions it need not look into.
const EVENTS: &str = "SELECT e.position, e.header, e.body_length, e.sandbox, b.encoding, b.body,
             (SELECT floor FROM retention WHERE class = 'lifecycle')
         FROM events e LEFT JOIN bodies b ON b.position = e.position AND b.position > $1";

const HEADERS: &str = "SELECT e.position, e.header,
             (SELECT floor FROM retention WHERE class = 'lifecycle')
         FROM events e";

fn filtered(select: &str, filter: &EventFilter) -> String {
    let mut sql = format!("{select} WHERE e.position > $1");
    let mut next = 3;
    for (column, wanted) in [
        ("e.exec", filter.exec.is_some()),
        ("e.sandbox", filter.sandbox.is_some()),
        ("e.tenant", filter.tenant.is_some()),
    ] {
        if wanted {
            sql.push_str(&format!(" AND {column} = ${next}"));
            next += 1;
        }
    }
    if !filter.types.is_empty() {
        sql.push_str(&format!(" AND e.type IN ({})", placeholders(next, filter.types.len())));
    }
    sql.push_str(" ORDER BY e.position LIMIT $2");
    sql
}

/// Binds what a filter wants, in the order in which [`filtered`] names it.
fn bind_filter<'q, DB>(
    mut query: Query<'q, DB, DB::Arguments>,
    filter: &'q EventFilter,
) -> Query<'q, DB, DB::Arguments>
where
    DB: Dialect,
    for<'v> &'v [u8]: Encode<'v, DB> + Type<DB>,
    for<'v> &'v str: Encode<'v, DB> + Type<DB>,
{
    if let Some(exec) = &filter.exec {
        query = query.bind(&exec.as_bytes()[..]);
    }
    if let Some(sandbox) = &filter.sandbox {
        query = query.bind(&sandbox.as_bytes()[..]);
    }
    if let Some(tenant) = &filter.tenant {
        query = query.bind(tenant.as_str());
    }
    for name in &filter.types {
        query = query.bind(name.as_str());
    }
    query
}

pub(super) fn placeholders(first: usize, count: usize) -> String {
    let mut sql = String::with_capacity(count * 5);
    for number in first..first + count {
        if number > first {
            sql.push(',');
        }
        sql.push_str(&format!("${number}"));
    }
    sql
}

/// What is kept of a body: its encoding in one column, its bytes in the next.
pub(super) fn stored<DB>(row: &DB::Row, column: usize) -> Result<Option<StoredBody>, sqlx::Error>
where
    DB: Database,
    for<'q> i16: Decode<'q, DB> + Type<DB>,
    for<'q> &'q [u8]: Decode<'q, DB> + Type<DB>,
    for<'q> Option<&'q [u8]>: Decode<'q, DB>,
    for<'q> Option<i16>: Decode<'q, DB>,
    usize: ColumnIndex<DB::Row>,
{
    let code: Option<i16> = row.try_get(column)?;
    let bytes: Option<&[u8]> = row.try_get(column + 1)?;
    let (Some(code), Some(bytes)) = (code, bytes) else {
        return Ok(None);
    };
    let encoding =
        Encoding::from_code(code).ok_or_else(|| sqlx::Error::Decode("an unknown encoding".into()))?;
    Ok(Some(StoredBody { encoding, bytes: bytes.to_vec().into() }))
}

/// The read models in the first column of every row.
async fn states<'q, DB, T>(
    query: Query<'q, DB, DB::Arguments>,
    readers: &Pool<DB>,
    operation: &'static str,
) -> Result<Vec<T>, StoreError>
where
    DB: Dialect,
    T: DeserializeOwned,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'r> &'r str: Decode<'r, DB> + Type<DB>,
    usize: ColumnIndex<DB::Row>,
{
    let failed = failed::<DB>(operation);
    let rows = query.fetch_all(readers).await.map_err(&failed)?;
    rows.iter()
        .map(|row| {
            let state: &str = row.try_get(0).map_err(&failed)?;
            serde_json::from_str(state).map_err(|error| damaged(operation, error))
        })
        .collect()
}
