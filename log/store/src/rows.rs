//! Read models: what the log makes of things, in one table for all kinds.

use events::{FoundBy, Key, Kind, Position, Subject};
use record::{Order, RowQuery, StoreError, StoredRow, Turn, WholeRow};

use super::asking::Cells;
use super::events::{ID_CHUNKS, position};
use super::sql::{Dialect, SqlStore, failed, pieces};
use super::statement::{Statement, Value};

/// Whether a query is one for what waits for its turn, which the database keeps in that order.
fn is_queue(query: &RowQuery) -> bool {
    let (kind, status) = RowQuery::QUEUED;
    query.kind == kind && query.status == Some(status) && matches!(query.order, Order::Turn(_))
}

/// The index that answers a query.
fn index(query: &RowQuery, keys: bool, parents: bool) -> Option<&'static str> {
    let newest = matches!(query.order, Order::Newest(_));
    // Of jobs there are many, so that they have indexes of their own.
    let of_jobs = query.kind == RowQuery::QUEUED.0 && query.tenant.is_some();
    if keys {
        None
    } else if parents && query.ended == Some(false) && !newest {
        Some("aggregates_live")
    } else if parents {
        Some("aggregates_of_parent")
    } else if of_jobs && is_queue(query) {
        Some(if query.place.is_some() { "jobs_queued_at" } else { "jobs_queued" })
    } else if query.place.is_some() && query.ended == Some(false) {
        Some("aggregates_at_place")
    } else if of_jobs && query.label.is_some() {
        Some("jobs_of_label")
    } else if of_jobs && query.status.is_some() {
        Some("jobs_of_status")
    } else if query.tenant.is_some() {
        Some("aggregates_of_tenant")
    } else {
        None
    }
}

/// The statement of a query that names at most these keys and parents. With `hints` it says which index it is answered by.
pub(super) fn rows_sql<'q>(
    query: &'q RowQuery,
    keys: Option<&'q [Key]>,
    parents: Option<&'q [Key]>,
    hints: bool,
) -> Statement<'q> {
    let index = index(query, keys.is_some(), parents.is_some());
    let hint = index.map(|index| hint(index, hints)).unwrap_or_default();
    let mut wanted = Statement {
        sql: format!("SELECT id, state FROM aggregates {hint} WHERE kind = $1 AND state IS NOT NULL"),
        values: vec![Value::Text(query.kind)],
    };
    // Conditions of partial indexes are repeated word by word, here and below: only then is the index found.
    if index.is_some_and(|index| index.starts_with("jobs_")) {
        wanted.sql.push_str(" AND kind = 'job'");
    }
    if let Some(keys) = keys {
        wanted.and_one_of("id", keys.iter().map(Value::from));
    }
    if let Some(parents) = parents {
        wanted.and_one_of("parent", parents.iter().map(Value::from));
    }
    if let Some(tenant) = &query.tenant {
        wanted.and("tenant =", Value::Text(tenant.as_str()));
        if keys.is_none() && parents.is_none() && !matches!(query.order, Order::Turn(_)) {
            wanted.sql.push_str(" AND parent IS NULL");
        }
    }
    if let Some(place) = &query.place {
        wanted.and("place =", Value::Text(place));
    }
    if let Some(status) = query.status {
        wanted.and("status =", Value::Text(status));
        if is_queue(query) {
            wanted.sql.push_str(" AND status = 'queued'");
        }
    }
    if let Some(label) = &query.label {
        wanted.and("label =", Value::Text(label));
    }
    if let Some(due_by) = query.due_by_us {
        wanted.and("COALESCE(due_at, 0) <=", Value::Number(due_by));
    }
    match query.ended {
        None => {}
        Some(false) => wanted.sql.push_str(" AND ended = 0"),
        Some(true) => wanted.sql.push_str(" AND ended = 1"),
    }
    let order = match &query.order {
        Order::Key(after) => {
            if let Some(after) = after {
                wanted.and("id >", Value::Bytes(after.as_bytes()));
            }
            "id"
        }
        Order::FallingKey(below) => {
            if let Some(below) = below {
                wanted.and("id <", Value::Bytes(below.as_bytes()));
            }
            "id DESC"
        }
        Order::Newest(before) => {
            if let Some((at, key)) = before {
                let (at, key) =
                    (wanted.value(Value::Number(*at)), wanted.value(Value::Bytes(key.as_bytes())));
                wanted.sql.push_str(&format!(" AND (sort_at, id) < ({at}, {key})"));
            }
            "sort_at DESC, id DESC"
        }
        Order::Turn(after) => {
            if let Some(Turn { rank, due_us, key }) = after {
                let (rank, due) = (wanted.value(Value::Number(*rank)), wanted.value(Value::Number(*due_us)));
                let key = wanted.value(Value::Bytes(key.as_bytes()));
                wanted
                    .sql
                    .push_str(&format!(" AND (rank, COALESCE(due_at, 0), id) > ({rank}, {due}, {key})"));
            }
            "rank, COALESCE(due_at, 0), id"
        }
    };
    wanted.sql.push_str(&format!(" ORDER BY {order}"));
    if let Some(limit) = query.limit {
        let limit = wanted.value(Value::Number(i64::from(limit)));
        wanted.sql.push_str(&format!(" LIMIT {limit}"));
    }
    wanted
}

/// All of a kind that have not ended, with the head.
pub(super) fn live_sql(hints: bool) -> String {
    let hint = hint("aggregates_live", hints);
    format!(
        "SELECT h.position, a.id, a.state FROM head h
         LEFT JOIN aggregates a {hint} ON a.kind = $1 AND a.ended = 0 ORDER BY a.id"
    )
}

/// The next key of a kind, of those that have a row and those that have events: where it is found by its subject, between these.
pub(super) fn next_sql<'q>(kind: &'q Kind, after: &'q Key, subjects: &'q [Vec<u8>; 2]) -> Statement<'q> {
    let mut wanted = Statement {
        sql: "SELECT id FROM (
                  SELECT id FROM (SELECT id FROM aggregates WHERE kind = $1 AND id > $2 ORDER BY id LIMIT 1) a"
            .to_owned(),
        values: vec![Value::Text(kind.name), Value::Bytes(after.as_bytes())],
    };
    match kind.found_by {
        FoundBy::Sandbox => wanted.sql.push_str(
            " UNION ALL SELECT id FROM (SELECT sandbox AS id FROM events WHERE sandbox > $2 ORDER BY sandbox LIMIT 1) b",
        ),
        FoundBy::Exec => wanted.sql.push_str(
            " UNION ALL SELECT id FROM (SELECT exec AS id FROM events WHERE exec > $2 ORDER BY exec LIMIT 1) b",
        ),
        FoundBy::Subject => {
            let [after, end] = subjects.each_ref().map(|bound| wanted.value(Value::Bytes(bound)));
            let key = kind.name.len() + 2;
            wanted.sql.push_str(&format!(
                " UNION ALL SELECT id FROM (SELECT substr(subject, {key}) AS id FROM events
                      WHERE subject > {after} AND subject < {end} ORDER BY subject LIMIT 1) b"
            ));
        }
        FoundBy::Category => {}
    }
    wanted.sql.push_str(") c ORDER BY id LIMIT 1");
    wanted
}

/// Says by which index a table is looked into, where that must be said.
pub(super) fn hint(index: &str, hints: bool) -> String {
    if hints { format!("INDEXED BY {index}") } else { String::new() }
}

impl<DB: Dialect> SqlStore<DB> {
    /// See [`record::EventStore::rows`].
    pub(super) async fn find(&self, query: &RowQuery) -> Result<Vec<StoredRow>, StoreError> {
        let mut found = Vec::new();
        if let Some(keys) = &query.keys {
            for piece in pieces(keys.len(), &ID_CHUNKS) {
                found.extend(
                    self.fetch(rows_sql(query, Some(&keys[piece]), query.parents.as_deref(), DB::HINTS))
                        .await?,
                );
            }
        } else if let Some(parents) = &query.parents {
            for piece in pieces(parents.len(), &ID_CHUNKS) {
                found.extend(self.fetch(rows_sql(query, None, Some(&parents[piece]), DB::HINTS)).await?);
            }
        } else {
            found = self.fetch(rows_sql(query, None, None, DB::HINTS)).await?;
        }
        Ok(found)
    }

    async fn fetch(&self, wanted: Statement<'_>) -> Result<Vec<StoredRow>, StoreError> {
        const OPERATION: &str = "read what is known of things";
        let rows = self.all(OPERATION, wanted).await?;
        let read = |row: &DB::Row| {
            let (id, state) = (row.bytes(0)?, row.maybe_text(1)?);
            Ok(StoredRow { key: Key::from_bytes(id), state: state.map(str::to_owned) })
        };
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(failed::<DB>(OPERATION))
    }

    /// See [`record::EventStore::live_rows`].
    pub(super) async fn find_live(
        &self,
        kind: &'static str,
    ) -> Result<(Position, Vec<StoredRow>), StoreError> {
        const OPERATION: &str = "read what is known of all that lives";
        let failed = failed::<DB>(OPERATION);
        // One statement sees one snapshot: the head belongs to the rows.
        let live = Statement::new(live_sql(DB::HINTS), [Value::Text(kind)]);
        let rows = self.all(OPERATION, live).await?;
        let mut head = Position::ZERO;
        let mut live = Vec::with_capacity(rows.len());
        for row in &rows {
            head = position(row.number(0).map_err(&failed)?);
            let id = row.maybe_bytes(1).map_err(&failed)?;
            let state = row.maybe_text(2).map_err(&failed)?;
            if let Some(id) = id {
                live.push(StoredRow { key: Key::from_bytes(id), state: state.map(str::to_owned) });
            }
        }
        Ok((head, live))
    }

    /// See [`record::Evidence::whole_row`].
    pub(super) async fn find_whole(
        &self,
        kind: &'static str,
        key: &Key,
    ) -> Result<Option<WholeRow>, StoreError> {
        const OPERATION: &str = "read a row";
        let failed = failed::<DB>(OPERATION);
        let wanted = Statement::new(
            "SELECT tenant, owner, parent, place, status, label, CAST(ended AS BIGINT), rank, sort_at, due_at, state
             FROM aggregates WHERE kind = $1 AND id = $2",
            [Value::Text(kind), Value::from(key)],
        );
        let Some(row) = self.first(OPERATION, wanted).await? else { return Ok(None) };
        let text = |column: usize| -> Result<Option<String>, StoreError> {
            Ok(row.maybe_text(column).map_err(&failed)?.map(str::to_owned))
        };
        let number = |column: usize| -> Result<Option<String>, StoreError> {
            Ok(row.maybe_number(column).map_err(&failed)?.map(|number| number.to_string()))
        };
        let parent = row.maybe_bytes(2).map_err(&failed)?;
        let parent = parent.map(|parent| Key::from_bytes(parent).to_string());
        let (tenant, owner, place, status, label) = (text(0)?, text(1)?, text(3)?, text(4)?, text(5)?);
        let (ended, rank, sort_at, due_at) = (number(6)?, number(7)?, number(8)?, number(9)?);
        let columns = vec![tenant, owner, parent, place, status, label, ended, rank, sort_at, due_at];
        Ok(Some(WholeRow { columns, state: text(10)? }))
    }

    /// See [`record::Evidence::next_key`].
    pub(super) async fn find_next(&self, kind: &Kind, after: &Key) -> Result<Option<Key>, StoreError> {
        const OPERATION: &str = "look for the next thing";
        let subjects = Subject::range(kind.name, after);
        let row = self.first(OPERATION, next_sql(kind, after, &subjects)).await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Key::from_bytes(row.bytes(0).map_err(failed::<DB>(OPERATION))?)))
    }
}
