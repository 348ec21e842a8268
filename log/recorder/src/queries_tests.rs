use std::collections::HashSet;

use events::*;
use record::{EventStore, Head};
use transport::{Answer, Query, SANDBOXES_A_PAGE, SandboxRecord};

use super::answer;
use crate::{Encoder, Incoming, Known, Numberer};

fn sandbox_id(n: usize) -> SandboxId {
    SandboxId::from_bytes((n as u128).to_be_bytes())
}

fn event(sandbox: usize, data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: Some(sandbox_id(sandbox)),
        time: chrono::DateTime::from_timestamp(1_750_000_000, 0).unwrap(),
        actor: Actor::Reaper,
        cause: None,
        request_id: None,
        traceparent: None,
        data: data.into(),
    }
}

fn requested(sandbox: usize) -> Event {
    let spec = serde_json::json!({
        "provider": "docker", "image": "a", "memory_mib": 1, "cpu_millis": 1, "pids_limit": 1
    });
    let at = chrono::DateTime::from_timestamp(1_750_000_060, 0).unwrap();
    let spec = serde_json::from_value(spec).unwrap();
    event(sandbox, SandboxRequested { spec, expires_at: at, lifetime_ends_at: at, term: None })
}

fn starting(sandbox: usize, node: &str) -> Event {
    event(sandbox, SandboxStarting { node: node.parse().unwrap() })
}

fn started(sandbox: usize, exec: ExecId) -> Event {
    let spec = serde_json::from_value(serde_json::json!({ "argv": ["true"] })).unwrap();
    event(sandbox, ExecStarted { exec, spec, env_names: vec![], pid: 7 })
}

fn exited(sandbox: usize, exec: ExecId) -> Event {
    let ended = ExecEnded::default();
    event(sandbox, ExecExited { exec, code: 0, signal: None, asked: None, ended })
}

async fn record(store: &dyn EventStore, events: Vec<Event>) {
    let mut numberer = Numberer::new(&Head::default());
    let incoming: Vec<Incoming> =
        events.iter().map(|event| Incoming::decode(event.to_frame().unwrap()).unwrap()).collect();
    let missing = numberer.missing(&incoming, false);
    numberer.learn(missing, Known::default());
    let mut encoder = Encoder::new().unwrap();
    let draft = numberer.draft(incoming, &HashSet::new(), StreamMark::default(), &mut encoder).unwrap();
    assert_eq!(draft.dropped, []);
    store.append(&draft.batch).await.unwrap();
}

async fn page(store: &dyn EventStore, node: &str, after: Option<SandboxId>) -> Vec<SandboxRecord> {
    let query = Query::LiveOnNode { node: node.parse().unwrap(), after };
    let Answer::Sandboxes(records) = answer(store, query).await.unwrap() else { panic!("no sandboxes") };
    records
}

#[tokio::test]
async fn a_node_is_told_page_by_page_what_lives_on_it_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("events.db").display());
    let store = store::open_store(&url).await.unwrap();
    let (whole, exec) = (SANDBOXES_A_PAGE + 3, |n: usize| ExecId::from_bytes((n as u128).to_be_bytes()));
    // Odd ones are on another node, each has an exec that runs and one that has ended.
    let mut events: Vec<Event> = Vec::new();
    for n in 1..=2 * whole {
        let node = if n % 2 == 0 { "node-1" } else { "node-2" };
        events.extend([
            requested(n),
            starting(n, node),
            started(n, exec(2 * n)),
            started(n, exec(2 * n + 1)),
        ]);
        events.push(exited(n, exec(2 * n + 1)));
    }
    // One waits, one has ended.
    events.extend([requested(9_000), requested(9_002), starting(9_002, "node-1")]);
    events.push(event(9_002, SandboxDestroyed { reason: DestroyReason::User }));
    record(&*store, events).await;

    let first = page(&*store, "node-1", None).await;
    let second = page(&*store, "node-1", first.last().map(|record| record.sandbox.id)).await;
    assert_eq!((first.len(), second.len()), (SANDBOXES_A_PAGE, 3));
    let told: Vec<SandboxRecord> = first.into_iter().chain(second).collect();
    for (index, SandboxRecord { sandbox, live_execs }) in told.iter().enumerate() {
        let n = 2 * (index + 1);
        assert_eq!(sandbox.id, sandbox_id(n));
        assert_eq!(live_execs.iter().map(|exec| exec.id).collect::<Vec<_>>(), [exec(2 * n)]);
    }
    assert!(page(&*store, "node-3", None).await.is_empty());
    let Answer::Sandboxes(one) = answer(&*store, Query::Sandbox { id: sandbox_id(5) }).await.unwrap() else {
        panic!("no sandboxes");
    };
    assert_eq!(one.len(), 1);
    assert_eq!(one[0].live_execs.iter().map(|exec| exec.id).collect::<Vec<_>>(), [exec(10)]);
}
