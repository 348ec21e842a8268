use events::{Actor, EventId, Template, TemplateSaved, TenantId};
use sqlx::{Connection, SqliteConnection};

use super::*;

fn saved(name: &str) -> (Template, String) {
    let template = Template { name: name.to_owned(), image: "x".to_owned(), ..Template::default() };
    let event = Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: None,
        time: chrono::DateTime::from_timestamp(1_764_000_000, 0).unwrap(),
        actor: Actor::Executor("node-1".parse().unwrap()),
        cause: None,
        request_id: None,
        traceparent: None,
        data: TemplateSaved { template: template.clone() }.into(),
    };
    (template, String::from_utf8(event.to_frame().unwrap().header.to_vec()).unwrap())
}

#[tokio::test]
async fn what_began_before_the_log_is_counted_once_however_often_it_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("events.db").display());
    let store = store::open_store(&url).await.unwrap();
    let db = tokio::sync::Mutex::new(SqliteConnection::connect(&url).await.unwrap());
    let show = async |template: &Template| {
        let tenant = TenantId::default_tenant();
        let state = TemplateState { tenant: tenant.clone(), template: template.clone() };
        sqlx::query(
            "INSERT INTO aggregates (kind, id, tenant, status, ended, rank, sort_at, state)
             VALUES ('template', ?, 'default', 'saved', 0, 0, 0, ?)",
        )
        .bind(state.key().as_bytes().to_vec())
        .bind(serde_json::to_string(&state).unwrap())
        .execute(&mut *db.lock().await)
        .await
        .unwrap();
    };
    // One from before the oldest event, and one with an event whose row comes late.
    let (old, _) = saved("old");
    show(&old).await;
    let (late, header) = saved("late");
    sqlx::query(
        "INSERT INTO events (position, id, tenant, type, time, header, hash)
         VALUES (8, x'01', 'default', 'template.saved', 0, ?, x'00')",
    )
    .bind(header.into_bytes())
    .execute(&mut *db.lock().await)
    .await
    .unwrap();
    let mut counts = Refolded { begun_before: 5, ..Refolded::default() };
    let mut pauses = 0;
    let right = few(&store, Position(7), &Kind::of::<TemplateState>(), &mut counts, async || {
        pauses += 1;
        if pauses == 2 {
            show(&late).await;
        }
    })
    .await
    .unwrap();
    assert_eq!((right, pauses), (Ok(1), 2));
    assert_eq!(counts.begun_before, 6);
}
