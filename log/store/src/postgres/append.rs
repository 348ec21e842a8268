//! An append as one statement.

use std::sync::{Arc, LazyLock};

use events::{ChainPoint, Subject};
use record::{AppendBatch, AppendEvent, DataKeyChange, Floor, Row, signed};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Postgres};

use crate::sql::{BodyRow, body_rows, class_name, erased_at, sealed_key};

type Append<'q> = Query<'q, Postgres, PgArguments>;

/// Rows that an append adds to one table: each column is one parameter, an array.
struct Part {
    table: &'static str,
    /// Names and types, in the order in which the part is bound.
    columns: &'static [(&'static str, &'static str)],
    /// What becomes of a row that is there already.
    conflict: &'static str,
}

const EVENTS: Part = Part {
    table: "events",
    columns: &[
        ("position", "bigint"),
        ("id", "bytea"),
        ("tenant", "text"),
        ("sandbox", "bytea"),
        ("exec", "bytea"),
        ("type", "text"),
        ("time", "bigint"),
        ("header", "bytea"),
        ("body_length", "bigint"),
        ("body_hash", "bytea"),
        ("hash", "bytea"),
        ("subject", "bytea"),
    ],
    conflict: "",
};

const BODIES: Part = Part {
    table: "bodies",
    columns: &[
        ("position", "bigint"),
        ("exec", "bytea"),
        ("stream", "smallint"),
        ("byte_offset", "bigint"),
        ("length", "bigint"),
        ("encoding", "smallint"),
        ("body", "bytea"),
    ],
    conflict: "",
};

const AGGREGATES: Part = Part {
    table: "aggregates",
    columns: &[
        ("kind", "text"),
        ("id", "bytea"),
        ("tenant", "text"),
        ("owner", "text"),
        ("parent", "bytea"),
        ("place", "text"),
        ("status", "text"),
        ("label", "text"),
        ("ended", "smallint"),
        ("rank", "bigint"),
        ("sort_at", "bigint"),
        ("due_at", "bigint"),
        ("state", "text"),
    ],
    conflict: "ON CONFLICT (kind, id) DO UPDATE SET owner = excluded.owner, place = excluded.place,
        status = excluded.status, label = excluded.label, ended = excluded.ended, rank = excluded.rank,
        due_at = excluded.due_at, state = excluded.state",
};

const CHAIN_HEADS: Part = Part {
    table: "chain_heads",
    columns: &[("tenant", "text"), ("position", "bigint"), ("hash", "bytea")],
    conflict: "ON CONFLICT (tenant) DO UPDATE SET position = excluded.position, hash = excluded.hash",
};

const DATA_KEYS: Part = Part {
    table: "data_keys",
    columns: &[("sandbox", "bytea"), ("tenant", "text"), ("sealed_key", "bytea"), ("erased_at", "bigint")],
    conflict: "ON CONFLICT (sandbox) DO UPDATE SET
        sealed_key = CASE WHEN excluded.erased_at IS NULL THEN data_keys.sealed_key END,
        erased_at = COALESCE(data_keys.erased_at, excluded.erased_at)",
};

/// The whole append in one statement, which is one transaction and one round trip: the head row is taken, and everything
/// else depends on it. A concurrent append waits for the row, sees that the head has moved, and adds nothing.
static APPEND: LazyLock<Arc<str>> = LazyLock::new(|| {
    let mut sql = String::from(
        "WITH taken AS (
            UPDATE head SET position = $1, stream_sequence = $2, incarnation = $3 WHERE position = $4 RETURNING 1
        )",
    );
    let mut next = 5;
    let mut arrays = |types: &[&str]| {
        let from = next;
        next += types.len();
        let array = |(index, kind): (usize, &&str)| format!("${}::{kind}[]", from + index);
        types.iter().enumerate().map(array).collect::<Vec<_>>().join(", ")
    };
    // In the order in which they are bound.
    for Part { table, columns, conflict } in [EVENTS, BODIES, AGGREGATES, CHAIN_HEADS, DATA_KEYS] {
        let (names, types): (Vec<&str>, Vec<&str>) = columns.iter().copied().unzip();
        let (names, arrays) = (names.join(", "), arrays(&types));
        sql.push_str(&format!(
            ", new_{table} AS (
                INSERT INTO {table} ({names}) SELECT u.* FROM taken, UNNEST({arrays}) AS u {conflict}
            )"
        ));
    }
    let arrays = arrays(&["text", "bigint", "bytea"]);
    sql.push_str(&format!(
        ", new_floors AS (
            UPDATE retention r SET floor = u.floor, checkpoint = u.checkpoint
            FROM taken, UNNEST({arrays}) AS u (class, floor, checkpoint)
            WHERE r.class = u.class AND r.floor < u.floor
        )
        SELECT 1 FROM taken"
    ));
    sql.into()
});

macro_rules! bind_columns {
    ($query:expr, $rows:expr, $row:ident => $($value:expr),+ $(,)?) => {{
        let (query, rows) = ($query, $rows);
        query$(.bind(rows.iter().map(|$row| $value).collect::<Vec<_>>()))+
    }};
}

/// The statement that appends a batch. It returns a row if the head stood where the batch begins.
pub(super) fn query(batch: &AppendBatch) -> Append<'_> {
    let query = sqlx::query(AssertSqlSafe(Arc::clone(&APPEND)))
        .bind(signed(batch.end().0))
        .bind(signed(batch.stream.sequence))
        .bind(batch.stream.incarnation.as_str())
        .bind(signed(batch.after.0));
    let query = events(query, &batch.events);
    let query = bodies(query, &body_rows(batch));
    let query = aggregates(query, &batch.rows);
    let query = chain_heads(query, &batch.chain_heads);
    let query = data_keys(query, &batch.data_keys);
    floors(query, &batch.floors)
}

fn events<'q>(query: Append<'q>, events: &'q [AppendEvent]) -> Append<'q> {
    bind_columns!(query, events, event =>
        signed(event.frame.position.0),
        &event.id.as_bytes()[..],
        event.tenant.as_str(),
        event.sandbox.as_ref().map(|id| &id.as_bytes()[..]),
        event.exec.as_ref().map(|id| &id.as_bytes()[..]),
        event.type_name,
        event.time_us,
        &event.frame.header[..],
        event.body.as_ref().map(|body| signed(body.length)),
        event.body.as_ref().map(|body| &body.hash[..]),
        &event.hash.0[..],
        event.subject.as_ref().map(Subject::as_bytes),
    )
}

fn bodies<'q>(query: Append<'q>, bodies: &[BodyRow<'q>]) -> Append<'q> {
    bind_columns!(query, bodies, row =>
        row.position, row.exec, row.stream, row.offset, row.length, row.encoding, row.bytes
    )
}

fn aggregates<'q>(query: Append<'q>, rows: &'q [Row]) -> Append<'q> {
    bind_columns!(query, rows, row =>
        row.kind,
        row.key.as_bytes(),
        row.fields.tenant.as_str(),
        row.fields.owner.as_deref(),
        row.fields.parent.as_ref().map(|parent| parent.as_bytes()),
        row.fields.place.as_deref(),
        row.fields.status,
        row.fields.label.as_deref(),
        i16::from(row.fields.ended),
        row.fields.rank,
        row.fields.sort_us,
        row.fields.due_us,
        row.state.as_deref(),
    )
}

fn chain_heads<'q>(query: Append<'q>, points: &'q [ChainPoint]) -> Append<'q> {
    bind_columns!(query, points, point =>
        point.tenant.as_str(), signed(point.position.0), &point.hash.0[..]
    )
}

fn data_keys<'q>(query: Append<'q>, changes: &'q [DataKeyChange]) -> Append<'q> {
    bind_columns!(query, changes, change =>
        &change.sandbox.as_bytes()[..], change.tenant.as_str(), sealed_key(change), erased_at(change)
    )
}

fn floors<'q>(query: Append<'q>, floors: &'q [Floor]) -> Append<'q> {
    bind_columns!(query, floors, floor =>
        class_name(floor.class), signed(floor.up_to.0), &floor.checkpoint.as_bytes()[..]
    )
}
