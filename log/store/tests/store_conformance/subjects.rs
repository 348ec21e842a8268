//! Things that are found by what their events are about, and those that wait for their turn.

use audit::{Fault, refold_kinds};
use events::*;
use record::{AppendBatch, EventFilter, Order, Past, Row, RowQuery, Turn};
use serde::{Deserialize, Serialize};

use super::Subject as Database;
use super::evidence::unguard;
use super::scenario::*;

/// How often a tenant moved files away from one path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Moves {
    tenant: TenantId,
    from: String,
    count: u32,
}

impl Moves {
    fn key_of(tenant: &TenantId, from: &str) -> Key {
        Key::of_name(tenant, from)
    }
}

impl Aggregate for Moves {
    const KIND: &'static str = "moves";
    const TAKES: &'static [Category] = &[Category::File];
    const FOUND_BY: FoundBy = FoundBy::Subject;

    fn changed_by(event: &Event) -> Option<Key> {
        let EventData::File(FileEvent::Moved(moved)) = &event.data else { return None };
        Some(Self::key_of(&event.tenant, &moved.from))
    }

    fn apply(state: Option<Self>, event: &Event) -> Option<Self> {
        let EventData::File(FileEvent::Moved(moved)) = &event.data else { return state };
        let count = state.map_or(0, |state| state.count) + 1;
        Some(Self { tenant: event.tenant.clone(), from: moved.from.clone(), count })
    }

    fn key(&self) -> Key {
        Self::key_of(&self.tenant, &self.from)
    }

    fn fields(&self) -> Fields {
        Fields::new(self.tenant.clone(), "moved")
    }
}

fn moved(of: &str, from: &str) -> Event {
    let moved = FileMoved { from: from.to_owned(), to: "/elsewhere".to_owned() };
    Event { tenant: tenant(of), ..event(Some(1), moved) }
}

pub async fn the_events_of_one_thing_are_found_by_it_and_not_among_all_of_its_kind(database: &Database) {
    let store = database.open().await;
    let registry = Registry::default().with::<Moves>();
    let mut log = Recorder::keeping(registry.clone());
    let first = ["/a", "/b", "/a", "/a/b", "/a\0"].map(|from| moved("red", from));
    store.append(&log.batch(first.to_vec())).await.unwrap();
    store.append(&log.batch(vec![moved("blue", "/a"), moved("red", "/a")])).await.unwrap();
    let written = FileWritten { path: "/a".to_owned(), size: 1, mode: 0o644 };
    store.append(&log.batch(vec![event(Some(1), written)])).await.unwrap();

    let (red, blue) = (tenant("red"), tenant("blue"));
    let kind = Kind::of::<Moves>();
    let found = async |tenant: &TenantId, from: &str| {
        let filter = EventFilter::of_thing(&kind, &Moves::key_of(tenant, from));
        let frames = store.read_headers(&filter, Position::ZERO, 100).await.unwrap();
        frames.iter().map(|frame| frame.position.0).collect::<Vec<_>>()
    };
    assert_eq!(found(&red, "/a").await, [1, 3, 7]);
    assert_eq!(found(&red, "/a/b").await, [4]);
    assert_eq!(found(&red, "/a\0").await, [5]);
    assert_eq!(found(&blue, "/a").await, [6]);
    assert_eq!(found(&blue, "/b").await, [0; 0]);
    let key = Moves::key_of(&red, "/a");
    for (last, count) in [(1, 1), (2, 1), (3, 2), (6, 2), (8, 3)] {
        let past = Past::<Moves>::one(&*store, &red, &key, Position(last)).await.unwrap().unwrap();
        assert_eq!(past.state.count, count, "after {last}");
    }
    assert_eq!(Past::<Moves>::one(&*store, &blue, &key, Position(8)).await.unwrap(), None);

    // The check of what is shown goes from one to the next, and sees one that has events and no row.
    let mut keys = Vec::new();
    let mut after = Key::from_bytes(&[]);
    while let Some(key) = store.evidence.next_key(&kind, &after).await.unwrap() {
        keys.push(key.clone());
        after = key;
    }
    let all = [(&blue, "/a"), (&red, "/a"), (&red, "/a\0"), (&red, "/a/b"), (&red, "/b")];
    assert_eq!(keys, all.map(|(tenant, from)| Moves::key_of(tenant, from)));
    let checked = async || {
        let mut counts = Default::default();
        refold_kinds(&store, Position::ZERO, &registry, &mut counts).await.unwrap()
    };
    assert_eq!(checked().await, None);
    database.raw("DELETE FROM aggregates WHERE kind = 'moves' AND tenant = 'blue'").await.unwrap();
    let found = checked().await.unwrap().explanation;
    assert!(found.contains("blue//a") && found.contains("has events and is not shown"), "{found}");
}

pub async fn an_event_that_is_found_by_what_it_is_not_about_is_named(database: &Database) {
    let store = database.open().await;
    let mut log = Recorder::default();
    store.append(&log.batch(short_exec(1, b"hello"))).await.unwrap();
    assert_eq!(verify(&store).await, Ok(Position(3)));
    unguard(database).await;
    let forged = if database.is_sqlite() { "x'6a6f622f61'" } else { "'job/a'" };
    database.raw(&format!("UPDATE events SET subject = {forged} WHERE position = 2")).await.unwrap();
    assert_eq!(verify(&store).await, Err((Position(2), Fault::Column)));
}

pub async fn what_waits_is_found_in_the_order_of_its_turn(database: &Database) {
    let store = database.open().await;
    let (red, blue) = (tenant("red"), tenant("blue"));
    let job = |number: u8, tenant: &TenantId, status, rank, due_us, place: Option<&str>| Row {
        kind: "job",
        key: Key::of_id([number; 16]),
        fields: Fields {
            rank,
            due_us,
            place: place.map(str::to_owned),
            label: Some("a".to_owned()),
            // Parts of something wait for their turn like all others.
            parent: (number.is_multiple_of(2)).then(|| Key::of_id([number; 16])),
            ..Fields::new(tenant.clone(), status)
        },
        state: Some(number.to_string()),
    };
    let rows = vec![
        job(1, &red, "queued", 5, Some(10), Some("q")),
        job(2, &red, "queued", -1, Some(90), None),
        job(3, &red, "queued", 5, None, Some("q")),
        job(4, &red, "running", -9, Some(1), Some("q")),
        job(5, &red, "queued", -1, Some(20), Some("q")),
        job(6, &blue, "queued", -99, None, None),
        job(7, &red, "queued", -1, Some(20), None),
        Row { kind: "exec", ..job(8, &red, "queued", -99, None, None) },
    ];
    let end = AppendBatch { rows, ..AppendBatch::default() };
    store.append(&end).await.unwrap();
    let found = async |query: RowQuery| {
        let rows = store.rows(&query).await.unwrap();
        rows.iter().map(|row| row.state.clone().unwrap()).collect::<String>()
    };
    let queued = RowQuery::queued(red.clone());
    assert_eq!(found(queued.clone()).await, "57231");
    assert_eq!(found(RowQuery { limit: Some(1), ..queued.clone() }).await, "5");
    assert_eq!(found(RowQuery { place: Some("q".to_owned()), ..queued.clone() }).await, "531");
    assert_eq!(found(RowQuery { due_by_us: Some(20), ..queued.clone() }).await, "5731");
    assert_eq!(found(RowQuery { due_by_us: Some(19), limit: Some(1), ..queued.clone() }).await, "3");
    assert_eq!(found(RowQuery::queued(blue.clone())).await, "6");
    let turn = |number, rank, due_us| Order::Turn(Some(Turn { rank, due_us, key: Key::of_id([number; 16]) }));
    for (order, rest) in
        [(turn(5, -1, 20), "7231"), (turn(2, -1, 90), "31"), (turn(3, 5, 0), "1"), (turn(1, 5, 10), "")]
    {
        assert_eq!(found(RowQuery { order, ..queued.clone() }).await, rest);
    }
    // In the order of keys, those that are parts of something are left out.
    let jobs = RowQuery { kind: "job", tenant: Some(red), ..RowQuery::default() };
    assert_eq!(found(RowQuery { status: Some("queued"), ..jobs.clone() }).await, "1357");
    assert_eq!(found(RowQuery { status: Some("running"), ..jobs.clone() }).await, "");
    assert_eq!(found(RowQuery { label: Some("a".to_owned()), ..jobs.clone() }).await, "1357");
    assert_eq!(found(RowQuery { label: Some("b".to_owned()), ..jobs.clone() }).await, "");
    let below = Order::FallingKey(Some(Key::of_id([7; 16])));
    assert_eq!(found(RowQuery { label: Some("a".to_owned()), order: below, ..jobs }).await, "531");
}
