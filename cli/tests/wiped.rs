//! The disk of the transport is lost, with everything that was acknowledged and not recorded yet.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::Duration;

use events::{Actor, Clock, Event, EventId, NodeId, NodeJoined, StreamMark, SystemClock, TenantId};
use serde_json::json;
use support::eventually;
use support::split::Split;
use transport::{Log, NatsConfig};

const SIGSTOP: i32 = 19;
const SIGCONT: i32 = 18;

#[tokio::test]
async fn what_was_acknowledged_is_recorded_and_what_was_asked_for_is_done_though_the_transport_lost_it() {
    let mut split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    // The record stands still: what follows is nowhere but on the transport's disk.
    split.recorder.signal(SIGSTOP);
    let path = format!("/sandboxes/{sandbox}/files");
    let (status, answer) = split.api.post(&path, json!({"path": "/workspace/a.txt", "content": "a"})).await;
    assert_eq!(status, 200, "{answer}");
    let exec = {
        let (api, path) = (split.api.clone(), format!("/sandboxes/{sandbox}/exec"));
        let body = json!({"command": "echo once | tee -a /workspace/runs"});
        tokio::spawn(async move { api.post(&path, body).await })
    };
    let another = {
        let api = split.api.clone();
        tokio::spawn(
            async move { api.post("/sandboxes", json!({"image": "alpine:latest", "ttl": "5m"})).await },
        )
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    split.wipe_nats();
    split.recorder.signal(SIGCONT);

    let (status, answer) = tokio::time::timeout(Duration::from_secs(60), exec).await.unwrap().unwrap();
    assert_eq!((status, &answer["stdout"]), (200, &json!("once\n")), "{answer}");
    let (status, answer) = tokio::time::timeout(Duration::from_secs(60), another).await.unwrap().unwrap();
    assert_eq!((status, &answer["state"]), (201, &json!("running")), "{answer}");
    assert_eq!(split.api.exec(&sandbox, "cat /workspace/runs").await["stdout"], "once\n");
    eventually("the file is in the record", Duration::from_secs(30), async || {
        let url = split.api.url(&format!("/events?sandbox={sandbox}&after=0&follow=false&type=file.written"));
        let text = split.api.http.get(url).send().await.unwrap().text().await.unwrap();
        text.contains("/workspace/a.txt").then_some(())
    })
    .await;
    assert_eq!(split.api.destroy(&sandbox).await, 200);
}

#[tokio::test]
async fn what_was_recorded_of_a_stream_that_is_lost_purges_nothing_of_the_one_after_it() {
    let split = Split::start().await;
    let log =
        Log::connect(&NatsConfig { prefix: "another".parse().unwrap(), ..NatsConfig::new(split.nats_url()) })
            .await
            .unwrap();
    let node: NodeId = "n".parse().unwrap();
    let joined = Event {
        id: EventId::new(),
        tenant: TenantId::system(),
        sandbox: None,
        time: SystemClock.now(),
        actor: Actor::Executor(node.clone()),
        cause: None,
        request_id: None,
        traceparent: None,
        data: NodeJoined { node, providers: Vec::new(), pools: Vec::new(), capacity: 1 }.into(),
    };
    log.publish(&[joined]).await.unwrap();
    let mark = StreamMark { incarnation: "the one before".to_owned(), sequence: 1 };
    log.purge_events(&mark).await.unwrap();
    let mut source = log.event_source(0, "").await.unwrap();
    let message = tokio::time::timeout(Duration::from_secs(10), source.next()).await.unwrap().unwrap();
    assert_eq!(message.place.map(|place| place.sequence), Some(1));
    // Of the stream itself it does.
    let mark = StreamMark { incarnation: source.incarnation().to_owned(), sequence: 1 };
    log.purge_events(&mark).await.unwrap();
    let mut source = log.event_source(0, "").await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), source.next()).await.is_err(), "it is still there");
}
