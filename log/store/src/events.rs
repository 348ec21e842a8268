//! Events as they were recorded, and what is found among them.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use events::{
    Aggregate, EventData, EventId, ExecState, Frame, Key, MissingBody, Position, SandboxId, SandboxState,
};
use futures::TryStreamExt;
use record::{AuditFilter, Encoding, EventQuery, FoundEvent, RowQuery, StoreError, StoredBody, signed};

use super::asking::Cells;
use super::keys::Kept;
use super::sql::{Dialect, SqlStore, damaged, failed, pieces};
use super::statement::{Statement, Value};

/// How many ids one query looks up. Fixed, so that its prepared statement is reused.
pub(super) const ID_CHUNKS: [usize; 7] = [512, 128, 32, 8, 4, 2, 1];

pub(super) fn position(value: i64) -> Position {
    Position(u64::try_from(value).unwrap_or_default())
}

pub(super) fn sandbox_id(bytes: &[u8]) -> Result<SandboxId, StoreError> {
    let bytes = bytes.try_into().map_err(|_| damaged("read events", "an id is not 16 bytes long"))?;
    Ok(SandboxId::from_bytes(bytes))
}

impl<DB: Dialect> SqlStore<DB> {
    /// See [`record::EventStore::events`].
    pub(super) async fn find_events(&self, wanted: &EventQuery) -> Result<Vec<FoundEvent>, StoreError> {
        let failed = failed::<DB>("read events");
        let mut found: Vec<FoundEvent> = Vec::new();
        let mut bodies = Vec::new();
        let mut floor = None;
        {
            let mut rows = DB::rows(&self.readers, events_sql(wanted));
            while let Some(row) = rows.try_next().await.map_err(&failed)? {
                let at = position(row.number(0).map_err(&failed)?);
                let header = row.bytes(1).map_err(&failed)?;
                let body_length = row.maybe_number(2).map_err(&failed)?;
                let body_length = body_length.map(|length| position(length).0);
                if floor.is_none() {
                    floor = Some(position(row.number(3).map_err(&failed)?));
                }
                if let (Some(length), true) = (body_length, wanted.bodies) {
                    let sandbox = row.maybe_bytes(4).map_err(&failed)?;
                    let sandbox = sandbox.map(sandbox_id).transpose()?;
                    let stored = stored(&row, 5).map_err(&failed)?;
                    bodies.push((found.len(), Kept { position: at, sandbox, length, stored }));
                }
                let header = header.to_vec().into();
                let frame = Frame { position: at, header, body: Bytes::new(), missing: None };
                found.push(FoundEvent { frame, body_length });
            }
        }
        if wanted.whole {
            let first = found.first().map(|found| &found.frame);
            self.refuse_trimmed(&wanted.filter, wanted.after, first, floor).await?;
        }
        let (indexes, kept): (Vec<usize>, Vec<Kept>) = bodies.into_iter().unzip();
        let lengths: Vec<u64> = kept.iter().map(|body| body.length).collect();
        let opened = self.open_bodies(kept).await?;
        for ((index, length), body) in indexes.into_iter().zip(lengths).zip(opened) {
            let frame = &mut found[index].frame;
            match body {
                Ok(body) => frame.body = body,
                Err(why) => frame.missing = Some(MissingBody { why, length }),
            }
        }
        Ok(found)
    }

    /// See [`record::EventStore::position_at`].
    pub(super) async fn find_position(&self, time: DateTime<Utc>) -> Result<Position, StoreError> {
        const OPERATION: &str = "find a position";
        let failed = failed::<DB>(OPERATION);
        let wanted = time.timestamp_micros();
        let ends = "SELECT (SELECT position FROM head),
                           COALESCE((SELECT position FROM events ORDER BY position LIMIT 1), 0)";
        let row = self.only(OPERATION, Statement::new(ends, [])).await?;
        let head = position(row.number(0).map_err(&failed)?).0;
        let first = position(row.number(1).map_err(&failed)?).0;
        // Halves what is in question: the first event of the upper half says which half it is.
        let (mut low, mut high) = (first.max(1), head + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let next = Statement::new(
                "SELECT time FROM events WHERE position >= $1 ORDER BY position LIMIT 1",
                [Value::Number(signed(middle))],
            );
            let row = self.first(OPERATION, next).await?;
            let at = row.map(|row| row.number(0)).transpose().map_err(&failed)?;
            if at.is_none_or(|at| at >= wanted) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(Position(low))
    }

    /// See [`record::EventStore::known_ids`].
    pub(super) async fn find_ids(&self, ids: &[EventId]) -> Result<Vec<EventId>, StoreError> {
        const OPERATION: &str = "look up event ids";
        let failed = failed::<DB>(OPERATION);
        let mut known = Vec::new();
        for piece in pieces(ids.len(), &ID_CHUNKS) {
            let mut wanted = Statement::new("SELECT id FROM events WHERE type <> 'exec.output'", []);
            wanted.and_one_of("id", ids[piece].iter().map(|id| Value::Bytes(id.as_bytes())));
            for row in self.all(OPERATION, wanted).await? {
                let id = row.bytes(0).map_err(&failed)?;
                let id = id.try_into().map_err(|_| damaged(OPERATION, "an id is not 16 bytes long"))?;
                known.push(EventId::from_bytes(id));
            }
        }
        Ok(known)
    }

    /// An error when events that would have been read were dropped.
    async fn refuse_trimmed(
        &self,
        filter: &AuditFilter,
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

    async fn lifecycle_floor(&self) -> Result<Position, StoreError> {
        const OPERATION: &str = "read the floor of the log";
        let failed = failed::<DB>(OPERATION);
        let floor = "SELECT floor FROM retention WHERE class = 'lifecycle'";
        let row = self.first(OPERATION, Statement::new(floor, [])).await?;
        row.map_or(Ok(Position::ZERO), |row| Ok(position(row.number(0).map_err(&failed)?)))
    }

    /// Whether all that ever matched this filter is still there, because it is about one thing whose first event is.
    async fn begins_above(&self, filter: &AuditFilter) -> Result<bool, StoreError> {
        const OPERATION: &str = "look for the first event";
        let (sql, id) = match (&filter.exec, &filter.sandbox, &filter.subject) {
            (Some(exec), ..) => {
                ("SELECT type FROM events WHERE exec = $1 ORDER BY position LIMIT 1", &exec.as_bytes()[..])
            }
            (None, Some(sandbox), _) => (
                "SELECT type FROM events WHERE sandbox = $1 ORDER BY position LIMIT 1",
                &sandbox.as_bytes()[..],
            ),
            (None, None, Some(subject)) => {
                ("SELECT type FROM events WHERE subject = $1 ORDER BY position LIMIT 1", subject.as_bytes())
            }
            (None, None, None) => return Ok(false),
        };
        let row = self.first(OPERATION, Statement::new(sql, [Value::Bytes(id)])).await?;
        if let Some(row) = row {
            let first = row.text(0).map_err(failed::<DB>(OPERATION))?;
            return Ok(EventData::WORDS.iter().any(|word| word.begins && word.name == first));
        }
        let (kind, key) = match (filter.exec, filter.sandbox, &filter.subject) {
            (Some(exec), ..) => (ExecState::KIND, Key::from(exec)),
            (None, Some(sandbox), _) => (SandboxState::KIND, Key::from(sandbox)),
            (None, None, Some(subject)) => (subject.kind(), subject.key().clone()),
            (None, None, None) => return Ok(false),
        };
        let known =
            !self.find(&RowQuery { kind, keys: Some(vec![key]), ..RowQuery::default() }).await?.is_empty();
        Ok(!known)
    }
}

/// The statement of a query.
pub(super) fn events_sql(wanted: &EventQuery) -> Statement<'_> {
    let EventQuery { filter, after, up_to, backwards, bodies, limit, .. } = wanted;
    let floor = "(SELECT floor FROM retention WHERE class = 'lifecycle')";
    // The second bound tells Postgres which partitions it need not look into.
    let (columns, join) = if *bodies {
        (
            ", e.sandbox, b.encoding, b.body",
            " LEFT JOIN bodies b ON b.position = e.position AND b.position > $1",
        )
    } else {
        ("", "")
    };
    let mut statement = Statement {
        sql: format!(
            "SELECT e.position, e.header, e.body_length, {floor}{columns} FROM events e{join} WHERE e.position > $1"
        ),
        values: vec![Value::Number(signed(after.0)), Value::Number(i64::from(*limit))],
    };
    if let Some(up_to) = up_to {
        statement.and("e.position <=", Value::Number(signed(up_to.0)));
    }
    if let Some(exec) = &filter.exec {
        statement.and("e.exec =", Value::Bytes(exec.as_bytes()));
    }
    if let Some(sandbox) = &filter.sandbox {
        statement.and("e.sandbox =", Value::Bytes(sandbox.as_bytes()));
    }
    if let Some(subject) = &filter.subject {
        statement.and("e.subject =", Value::Bytes(subject.as_bytes()));
    }
    if let Some(tenant) = &filter.tenant {
        // What is about one thing is found by that, and never by whose it is: of that there is more.
        let narrow = filter.exec.is_some() || filter.sandbox.is_some() || filter.subject.is_some();
        let condition = if narrow { "(e.tenant || '') =" } else { "e.tenant =" };
        statement.and(condition, Value::Text(tenant.as_str()));
    }
    for (condition, time) in [("e.time >=", filter.from), ("e.time <", filter.to)] {
        if let Some(time) = time {
            statement.and(condition, Value::Number(time.timestamp_micros()));
        }
    }
    if let Some(types) = kept_apart(filter) {
        // As the index says it, so that it is found.
        statement.sql.push_str(&format!(" AND e.type {types}"));
    } else if !filter.types.is_empty() {
        statement.and_one_of("e.type", filter.types.iter().map(|name| Value::Text(name)));
    }
    let order = if *backwards { "e.position DESC" } else { "e.position" };
    statement.sql.push_str(&format!(" ORDER BY {order} LIMIT $2"));
    statement
}

/// The types that have an index of their own, where exactly those are wanted.
fn kept_apart(filter: &AuditFilter) -> Option<&'static str> {
    let mut types: Vec<&str> = filter.types.iter().map(String::as_str).collect();
    types.sort_unstable();
    match types[..] {
        ["audit.checkpoint"] => Some("= 'audit.checkpoint'"),
        ["access.granted", "access.revoked"] => Some("IN ('access.granted', 'access.revoked')"),
        _ => None,
    }
}

/// What is kept of a body: its encoding in one column, its bytes in the next.
pub(super) fn stored(row: &impl Cells, column: usize) -> Result<Option<StoredBody>, sqlx::Error> {
    let code = row.maybe_small(column)?;
    let bytes = row.maybe_bytes(column + 1)?;
    let (Some(code), Some(bytes)) = (code, bytes) else {
        return Ok(None);
    };
    let encoding =
        Encoding::from_code(code).ok_or_else(|| sqlx::Error::Decode("an unknown encoding".into()))?;
    Ok(Some(StoredBody { encoding, bytes: bytes.to_vec().into() }))
}
