//! A database of the version before, which had a table for each kind of thing.

use events::*;

use super::Subject;
use super::scenario::*;

/// The tables as they were, by the migrations that made them.
fn tables_of_before(sqlite: bool) -> String {
    let (events, webhooks) = if sqlite {
        (
            include_str!("../../../../migrations/sqlite/0001_events.sql"),
            include_str!("../../../../migrations/sqlite/0002_webhooks.sql"),
        )
    } else {
        (
            include_str!("../../../../migrations/postgres/0001_events.sql"),
            include_str!("../../../../migrations/postgres/0002_webhooks.sql"),
        )
    };
    let models = events.find("-- Read models:").unwrap();
    format!("{}\n{webhooks}", &events[models..])
}

/// Puts what is known of things into those tables, and forgets that it was ever elsewhere. What is now is kept beside, as `kept`.
fn go_back(sqlite: bool) -> String {
    let (name, template) = if sqlite {
        ("substr(CAST(id AS TEXT), length(tenant) + 2)", "json_extract(state, '$.template')")
    } else {
        ("substr(convert_from(id, 'UTF8'), length(tenant) + 2)", "(state::json -> 'template')::text")
    };
    format!(
        "{}
         INSERT INTO sandboxes (id, tenant, owner, provider, node, ended, expires_at, state)
             SELECT id, tenant, owner, label, place, ended, due_at, state FROM aggregates WHERE kind = 'sandbox';
         INSERT INTO execs (id, tenant, sandbox, ended, started_at, state)
             SELECT id, tenant, parent, ended, sort_at, state FROM aggregates WHERE kind = 'exec';
         INSERT INTO templates (tenant, name, template)
             SELECT tenant, {name}, {template} FROM aggregates WHERE kind = 'template';
         INSERT INTO webhooks (id, tenant, state)
             SELECT id, tenant, state FROM aggregates WHERE kind = 'webhook';
         CREATE TABLE kept AS SELECT * FROM aggregates;
         CREATE TABLE kept_events AS SELECT * FROM events;
         DROP TABLE aggregates;
         DROP INDEX events_of_tenant;
         DROP INDEX events_of_subject;
         ALTER TABLE events DROP COLUMN subject;
         DELETE FROM _sqlx_migrations WHERE version >= 4;",
        tables_of_before(sqlite)
    )
}

/// How many rows are in one of the tables and not in the other.
fn differences(one: &str, other: &str) -> String {
    format!(
        "SELECT (SELECT count(*) FROM (SELECT * FROM {one} EXCEPT SELECT * FROM {other}) a)
              + (SELECT count(*) FROM (SELECT * FROM {other} EXCEPT SELECT * FROM {one}) b)"
    )
}

pub async fn a_database_of_before_comes_along_whole(subject: &Subject) {
    let mut log = Recorder::default();
    let webhook = |n: u8| Webhook {
        id: WebhookId::from_bytes([n; 16]),
        url: "https://a.example/\"phase\":{\"phase\":\"x\"".to_owned(),
        types: Vec::new(),
        sandbox: None,
        sealed_secret: "AAAA".to_owned(),
        description: "\0".to_owned(),
    };
    let saved = |n| event(None, WebhookSaved { webhook: webhook(n), cursor: Position(3) });
    let template = |name: &str| {
        let template = Template { name: name.to_owned(), image: "a \"b\"".to_owned(), ..Template::default() };
        event(None, TemplateSaved { template })
    };
    let mut hostile = requested(Some("a\0b"));
    hostile.spec.metadata.insert("phase".to_owned(), "\"phase\":{\"phase\":\"lost\"}".to_owned());
    let mut unsure = started(3);
    unsure.spec.argv = vec!["\"pending\":true".to_owned(), "\"end\":{\"outcome\":\"killed\"".to_owned()];
    let pending = ExecRequested { exec: exec_id(4), spec: unsure.spec.clone(), env_names: Vec::new() };
    let mut events =
        vec![event(Some(1), hostile), event(Some(2), requested(None)), event(Some(1), running())];
    events.extend(short_exec(1, b"hello"));
    events.extend([
        event(Some(1), started(2)),
        event(Some(1), unsure),
        event(Some(1), pending),
        event(Some(2), SandboxDestroyed { reason: DestroyReason::Ttl }),
        template("a"),
        template("b/c"),
        event(None, TemplateDeleted { name: "a".to_owned() }),
        saved(1),
        saved(2),
        event(None, WebhookDeleted { webhook: webhook(2).id }),
    ]);
    {
        let store = subject.open().await;
        store.append(&log.batch(events)).await.unwrap();
        store.close().await;
    }
    subject.raw(&go_back(subject.is_sqlite())).await.unwrap();
    let store = subject.open().await;
    assert_eq!(subject.number("SELECT count(*) FROM kept").await, 10);
    assert_eq!(subject.number(&differences("kept", "aggregates")).await, 0);
    assert_eq!(subject.number(&differences("kept_events", "events")).await, 0);
    assert_eq!(verify(&store).await, Ok(store.head().await.unwrap().position));
    // And it goes on.
    store.append(&log.batch(vec![event(Some(1), exited(2, 0, 0)), template("a")])).await.unwrap();
    assert_eq!(store.templates(&tenant("default")).await.unwrap().len(), 2);
    assert_eq!(store.live_execs().await.unwrap().len(), 2);
}
