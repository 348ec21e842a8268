//! That what is listed is found by an index, however much there is.

use events::{ExecState, FoundBy, Key, Kind, SandboxId, Subject, TenantId};
use record::{AuditFilter, EventQuery, Order, RowQuery, Turn};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};

use super::events::events_sql;
use super::open_store;
use super::output::open_output_sql;
use super::retention::first_live_sql;
use super::rows::{live_sql, next_sql, rows_sql};
use super::statement::{Statement, Value};

#[allow(dead_code, reason = "each suite uses a part of it")]
#[path = "../tests/support/mod.rs"]
mod support;

enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Database {
    async fn run(&mut self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => drop(sqlx::raw_sql(sql).execute(connection).await.unwrap()),
            Self::Postgres(connection) => drop(sqlx::raw_sql(sql).execute(connection).await.unwrap()),
        }
    }

    /// How the database would answer a statement.
    async fn plan(&mut self, statement: Statement<'_>) -> String {
        let mut sql = statement.sql;
        // The greatest first: $1 is the beginning of $10.
        for (index, value) in statement.values.iter().enumerate().rev() {
            let literal = match (value, &self) {
                (Value::Text(text), _) => format!("'{text}'"),
                (Value::Number(number), _) => number.to_string(),
                (Value::Small(number), _) => number.to_string(),
                (Value::Bytes(bytes), Self::Sqlite(_)) => format!("x'{}'", hex::encode(bytes)),
                (Value::Bytes(bytes), Self::Postgres(_)) => format!("'\\x{}'::bytea", hex::encode(bytes)),
            };
            sql = sql.replace(&format!("${}", index + 1), &literal);
        }
        match self {
            Self::Sqlite(connection) => {
                let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}")));
                let rows = rows.fetch_all(connection).await.unwrap();
                rows.iter().map(|row| row.get::<String, _>(3)).collect::<Vec<_>>().join("\n")
            }
            Self::Postgres(connection) => {
                let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN {sql}")));
                let rows = rows.fetch_all(connection).await.unwrap();
                rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
            }
        }
    }
}

/// Many tenants with many events and things each.
async fn fill(database: &mut Database) {
    let (numbers, id, sandbox, subject) = match database {
        Database::Sqlite(_) => (
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)",
            "CAST(printf('%016d', i) AS BLOB)",
            "CAST(printf('%016d', i / 20) AS BLOB)",
            "CAST(printf('job/%016d', i / 20) AS BLOB)",
        ),
        Database::Postgres(_) => (
            "WITH n AS (SELECT generate_series(1, 20000) AS i)",
            "convert_to(lpad(i::text, 16, '0'), 'UTF8')",
            "convert_to(lpad((i / 20)::text, 16, '0'), 'UTF8')",
            "convert_to('job/' || lpad((i / 20)::text, 16, '0'), 'UTF8')",
        ),
    };
    let tenant = "'t' || (i % 100)";
    database
        .run(&format!(
            "INSERT INTO events (position, id, tenant, sandbox, subject, type, time, header, hash)
             {numbers} SELECT i, {id}, {tenant}, {sandbox}, CASE WHEN i % 4 = 0 THEN {subject} END,
                 'file.read', i, {id}, {id} FROM n"
        ))
        .await;
    let (node, status) = (
        "'node-' || (i % 50)",
        "CASE WHEN i % 1000 < 300 THEN 'queued' WHEN i % 5000 > 4900 THEN 'running' ELSE 'x' END",
    );
    for (kind, parent, place) in [("sandbox", "NULL", node), ("exec", sandbox, "NULL"), ("job", "NULL", node)]
    {
        database
            .run(&format!(
                "INSERT INTO aggregates
                     (kind, id, tenant, parent, place, status, label, ended, rank, sort_at, due_at, state)
                 {numbers} SELECT '{kind}', {id}, {tenant}, {parent}, {place}, {status}, 'g' || (i % 700),
                     CASE WHEN i % 10 = 0 THEN 0 ELSE 1 END, i % 7, i, CASE WHEN i % 3 = 0 THEN i END, '' FROM n"
            ))
            .await;
    }
    if let Database::Postgres(_) = database {
        database.run("ANALYZE").await;
    }
}

async fn what_is_listed_is_found_by_an_index(mut database: Database) {
    fill(&mut database).await;
    let tenant: Option<TenantId> = Some("t7".parse().unwrap());
    let sandbox = SandboxId::from_bytes(*b"0000000000000500");
    let of_tenant = AuditFilter { tenant: tenant.clone(), ..AuditFilter::default() };
    let types = vec!["file.read".to_owned(), "exec.started".to_owned()];
    let of_types = AuditFilter { types: types.clone(), ..of_tenant.clone() };
    let of_sandbox = AuditFilter { sandbox: Some(sandbox), ..of_types.clone() };
    let subject = Some(Subject::of("job", sandbox.into()));
    let of_subject = AuditFilter { subject, sandbox: None, ..of_sandbox.clone() };
    let page = EventQuery { limit: 100, ..EventQuery::default() };
    let feed = EventQuery { bodies: true, whole: true, ..page.clone() };
    let last = EventQuery { backwards: true, up_to: Some(events::Position(19_000)), ..page.clone() };
    for (what, query, index) in [
        ("a tenant's feed", EventQuery { filter: of_tenant.clone(), ..feed.clone() }, "events_of_tenant"),
        ("a tenant's feed of types", EventQuery { filter: of_types.clone(), ..feed }, "events_of_tenant"),
        ("a tenant's audit trail", EventQuery { filter: of_tenant, ..page.clone() }, "events_of_tenant"),
        ("its newest page", EventQuery { filter: of_types, ..last }, "events_of_tenant"),
        (
            "what happened to a sandbox",
            EventQuery { filter: of_sandbox, ..page.clone() },
            "events_of_sandbox",
        ),
        ("what happened to a job", EventQuery { filter: of_subject, ..page }, "events_of_subject"),
    ] {
        let plan = database.plan(events_sql(&query)).await;
        assert!(plan.contains(index), "{what}:\n{plan}");
    }
    let rows = RowQuery { limit: Some(100), ..RowQuery::default() };
    let sandboxes = RowQuery { kind: "sandbox", ..rows.clone() };
    let execs = RowQuery { kind: "exec", ..rows.clone() };
    let below = Order::FallingKey(Some(sandbox.into()));
    let before = Order::Newest(Some((19_000, Key::from(sandbox))));
    let parents = Some(vec![Key::from(sandbox)]);
    let live = RowQuery { ended: Some(false), ..execs.clone() };
    let jobs = RowQuery { kind: "job", tenant: tenant.clone(), ..rows.clone() };
    let queued = RowQuery { limit: Some(1), ..RowQuery::queued(tenant.clone().unwrap()) };
    let turn = Order::Turn(Some(Turn { rank: 3, due_us: 7, key: sandbox.into() }));
    for (what, query, index) in [
        (
            "all of a tenant",
            RowQuery { tenant: tenant.clone(), order: below, ..sandboxes.clone() },
            "aggregates_of_tenant",
        ),
        (
            "what lives on a node",
            RowQuery { place: Some("node-0".to_owned()), ended: Some(false), ..sandboxes },
            "aggregates_at_place",
        ),
        (
            "the execs of a sandbox",
            RowQuery { parents: parents.clone(), order: before, ..execs },
            "aggregates_of_parent",
        ),
        ("the live execs of a sandbox", RowQuery { parents, ..live }, "aggregates_"),
        ("a tenant's next job", queued.clone(), "jobs_queued"),
        ("its next job after one", RowQuery { order: turn, ..queued.clone() }, "jobs_queued"),
        ("its next job that is due", RowQuery { due_by_us: Some(9_000), ..queued.clone() }, "jobs_queued"),
        (
            "its next job of a queue",
            RowQuery { place: Some("node-7".to_owned()), ..queued },
            "jobs_queued_at",
        ),
        ("its running jobs", RowQuery { status: Some("running"), ..jobs.clone() }, "jobs_of_status"),
        ("the jobs of a group", RowQuery { label: Some("g7".to_owned()), ..jobs }, "jobs_of_label"),
    ] {
        let hints = matches!(database, Database::Sqlite(_));
        let plan = database.plan(rows_sql(&query, None, query.parents.as_deref(), hints)).await;
        assert!(plan.contains(index), "{what}:\n{plan}");
        if index.starts_with("jobs_queued") {
            // In the order of the index: nothing is sorted, and the first that is found is the first.
            assert!(!plan.contains("Sort") && !plan.contains("TEMP B-TREE"), "{what}:\n{plan}");
        }
    }
    let hints = matches!(database, Database::Sqlite(_));
    let (mut jobs, after) = (Kind::of::<ExecState>(), Key::from(sandbox));
    (jobs.name, jobs.found_by) = ("job", FoundBy::Subject);
    let subjects = Subject::range("job", &after);
    let plan = database.plan(next_sql(&jobs, &after, &subjects)).await;
    assert!(plan.contains("events_of_subject"), "the next job that there are events of:\n{plan}");
    let mut whole = vec![
        ("all live execs", live_sql(hints), vec![Value::Text("exec")], "aggregates_live"),
        ("the first event of what lives", first_live_sql(hints), Vec::new(), "aggregates_live"),
    ];
    if hints {
        // Postgres looks first whether there are bodies at all, of which there are none here.
        let values = vec![Value::Bytes(sandbox.as_bytes())];
        whole.push(("output that is not sealed", open_output_sql(hints), values, "aggregates_of_parent"));
    }
    for (what, sql, values, index) in whole {
        let plan = database.plan(Statement { sql, values }).await;
        assert!(plan.contains(index), "{what}:\n{plan}");
    }
}

#[tokio::test]
async fn what_is_listed_in_sqlite_is_found_by_an_index() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("events.db").display());
    open_store(&url).await.unwrap().close().await;
    let connection = SqliteConnection::connect(&url).await.unwrap();
    what_is_listed_is_found_by_an_index(Database::Sqlite(connection)).await;
}

#[tokio::test]
async fn what_is_listed_in_postgres_is_found_by_an_index() {
    let postgres = support::Postgres::start();
    let url = postgres.database("plans");
    open_store(&url).await.unwrap().close().await;
    let connection = PgConnection::connect(&url).await.unwrap();
    what_is_listed_is_found_by_an_index(Database::Postgres(connection)).await;
}
