//! Read models: what the log makes of things, in one table for all kinds.

use events::{FoundBy, Key, Kind, Position};
use record::{Order, RowQuery, StoreError, StoredRow, WholeRow};
use sqlx::{AssertSqlSafe, ColumnIndex, Decode, Encode, Executor, IntoArguments, Row, Type};

use super::events::{ID_CHUNKS, position};
use super::sql::{Dialect, SqlStore, failed, pieces};
use super::statement::{Statement, Value};

/// The index that answers a query.
fn index(query: &RowQuery, keys: bool, parents: bool) -> Option<&'static str> {
    let newest = matches!(query.order, Order::Newest(_));
    if keys {
        None
    } else if parents && query.ended == Some(false) && !newest {
        Some("aggregates_live")
    } else if parents {
        Some("aggregates_of_parent")
    } else if query.place.is_some() && query.ended == Some(false) {
        Some("aggregates_at_place")
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
    if let Some(keys) = keys {
        wanted.and_one_of("id", keys.iter().map(Value::from));
    }
    if let Some(parents) = parents {
        wanted.and_one_of("parent", parents.iter().map(Value::from));
    }
    if let Some(tenant) = &query.tenant {
        wanted.and("tenant =", Value::Text(tenant.as_str()));
        if keys.is_none() && parents.is_none() {
            // As the index says it, so that it is found. The same below.
            wanted.sql.push_str(" AND parent IS NULL");
        }
    }
    if let Some(place) = &query.place {
        wanted.and("place =", Value::Text(place));
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

/// Says by which index a table is looked into, where that must be said.
pub(super) fn hint(index: &str, hints: bool) -> String {
    if hints { format!("INDEXED BY {index}") } else { String::new() }
}

impl<DB> SqlStore<DB>
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
        let failed = failed::<DB>("read what is known of things");
        let rows = wanted.query::<DB>().fetch_all(&self.readers).await.map_err(&failed)?;
        let read = |row: &DB::Row| {
            let (id, state): (&[u8], Option<&str>) = (row.try_get(0)?, row.try_get(1)?);
            Ok(StoredRow { key: Key::from_bytes(id), state: state.map(str::to_owned) })
        };
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(&failed)
    }

    /// See [`record::EventStore::live_rows`].
    pub(super) async fn find_live(
        &self,
        kind: &'static str,
    ) -> Result<(Position, Vec<StoredRow>), StoreError> {
        let failed = failed::<DB>("read what is known of all that lives");
        // One statement sees one snapshot: the head belongs to the rows.
        let rows = sqlx::query::<DB>(AssertSqlSafe(live_sql(DB::HINTS)))
            .bind(kind)
            .fetch_all(&self.readers)
            .await
            .map_err(&failed)?;
        let mut head = Position::ZERO;
        let mut live = Vec::with_capacity(rows.len());
        for row in &rows {
            head = position(row.try_get(0).map_err(&failed)?);
            let id: Option<&[u8]> = row.try_get(1).map_err(&failed)?;
            let state: Option<&str> = row.try_get(2).map_err(&failed)?;
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
        let failed = failed::<DB>("read a row");
        let row = sqlx::query::<DB>(
            "SELECT tenant, owner, parent, place, status, label, CAST(ended AS BIGINT), rank, sort_at, due_at, state
             FROM aggregates WHERE kind = $1 AND id = $2",
        )
        .bind(kind)
        .bind(key.as_bytes())
        .fetch_optional(&self.readers)
        .await;
        let Some(row) = row.map_err(&failed)? else { return Ok(None) };
        let text = |column: usize| -> Result<Option<String>, StoreError> {
            Ok(row.try_get::<Option<&str>, _>(column).map_err(&failed)?.map(str::to_owned))
        };
        let number = |column: usize| -> Result<Option<String>, StoreError> {
            Ok(row.try_get::<Option<i64>, _>(column).map_err(&failed)?.map(|number| number.to_string()))
        };
        let parent: Option<&[u8]> = row.try_get(2).map_err(&failed)?;
        let parent = parent.map(|parent| Key::from_bytes(parent).to_string());
        let (tenant, owner, place, status, label) = (text(0)?, text(1)?, text(3)?, text(4)?, text(5)?);
        let (ended, rank, sort_at, due_at) = (number(6)?, number(7)?, number(8)?, number(9)?);
        let columns = vec![tenant, owner, parent, place, status, label, ended, rank, sort_at, due_at];
        Ok(Some(WholeRow { columns, state: text(10)? }))
    }

    /// See [`record::Evidence::next_key`].
    pub(super) async fn find_next(&self, kind: &Kind, after: &Key) -> Result<Option<Key>, StoreError> {
        let failed = failed::<DB>("look for the next thing");
        let row =
            "SELECT id FROM (SELECT id FROM aggregates WHERE kind = $1 AND id > $2 ORDER BY id LIMIT 1) a";
        let event = match kind.found_by {
            FoundBy::Sandbox => {
                "UNION ALL SELECT id FROM (SELECT sandbox AS id FROM events WHERE sandbox > $2 ORDER BY sandbox LIMIT 1) b"
            }
            FoundBy::Exec => {
                "UNION ALL SELECT id FROM (SELECT exec AS id FROM events WHERE exec > $2 ORDER BY exec LIMIT 1) b"
            }
            FoundBy::Category => "",
        };
        let sql = format!("SELECT id FROM ({row} {event}) c ORDER BY id LIMIT 1");
        let row = sqlx::query::<DB>(AssertSqlSafe(sql))
            .bind(kind.name)
            .bind(after.as_bytes())
            .fetch_optional(&self.readers)
            .await
            .map_err(&failed)?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(Key::from_bytes(row.try_get(0).map_err(&failed)?)))
    }
}
