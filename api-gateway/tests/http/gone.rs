//! What is not kept any more: erased, or grown old.

use audit::{PublicKeys, verify_store};
use events::{Actor, Event, EventId, LogTrimmed, OutputStream, Position, RetentionClass, TenantId};
use record::EventFilter;
use reqwest::Method;
use serde_json::{Value, json};

use super::world::{BLUE, World, error, json as body_of};

async fn records(world: &World, exec: &str) -> Vec<Value> {
    let request = world.ask(Method::GET, &format!("/execs/{exec}/stream"));
    let text = request.send().await.unwrap().text().await.unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn what_is_erased_is_gone_and_every_reader_is_told_so() {
    let world = World::sealed().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "hello", 200).await;
    let exec = exec["exec_id"].as_str().unwrap();
    let output = format!("/execs/{exec}/output");
    assert_eq!(world.ask(Method::GET, &output).send().await.unwrap().text().await.unwrap(), "hello\n");
    let before = records(&world, exec).await;

    let erase = format!("/sandboxes/{sandbox}/erase");
    assert_eq!(error(world.ask_as(BLUE, Method::POST, &erase), 404).await, "NOT_FOUND");
    assert_eq!(body_of(world.ask(Method::POST, &erase), 200).await, json!({"status": "erased"}));

    for query in ["", "?offset=5", "?stream=stderr&offset=1", "?follow=true"] {
        let response = world.ask(Method::GET, &format!("{output}{query}")).send().await.unwrap();
        assert_eq!(response.status(), 410, "{query}");
        let next = if query.contains("stderr") { "5" } else { "6" };
        assert_eq!(response.headers()["x-next-offset"], next, "{query}");
        assert_eq!(response.json::<Value>().await.unwrap()["code"], "GONE");
    }
    // From the end on there is nothing to miss.
    let response = world.ask(Method::GET, &format!("{output}?offset=6")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.text().await.unwrap().as_str()), (200, ""));
    let after = records(&world, exec).await;
    let gone = |stream: &str, next: u64| json!({"type": "gone", "stream": stream, "data": "", "offset": 0, "next_offset": next, "why": "erased"});
    let mut expected = before.clone();
    for record in &mut expected {
        match record["stream"].as_str() {
            Some("stdout") => *record = gone("stdout", 6),
            Some("stderr") => *record = gone("stderr", 5),
            _ => {}
        }
    }
    assert_eq!(after, expected);

    // A second time changes nothing; nor does it matter that the sandbox is gone.
    world.delete(&format!("/sandboxes/{sandbox}")).await;
    assert_eq!(body_of(world.ask(Method::POST, &erase), 200).await, json!({"status": "erased"}));
    let filter = EventFilter { types: vec!["sandbox.erased".to_owned()], ..EventFilter::default() };
    let erased = world.store.read(&filter, Position::ZERO, 10).await.unwrap();
    assert_eq!(erased.len(), 1);
    assert_eq!(erased[0].decode().unwrap().actor.to_string(), "client:key-of-red");
    assert!(verify_store(&world.store, &PublicKeys::default()).await.unwrap().ok);
}

#[tokio::test]
async fn a_destroyed_sandbox_can_still_be_erased() {
    let world = World::sealed().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "hello", 200).await;
    world.delete(&format!("/sandboxes/{sandbox}")).await;
    body_of(world.ask(Method::POST, &format!("/sandboxes/{sandbox}/erase")), 200).await;
    let output = format!("/execs/{}/output", exec["exec_id"].as_str().unwrap());
    assert_eq!(error(world.ask(Method::GET, &output), 410).await, "GONE");
}

#[tokio::test]
async fn what_was_never_sealed_is_not_said_to_be_erased() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "hello", 200).await;
    let erase = world.ask(Method::POST, &format!("/sandboxes/{sandbox}/erase"));
    assert_eq!(error(erase, 409).await, "CONFLICT");
    let output = format!("/execs/{}/output", exec["exec_id"].as_str().unwrap());
    let response = world.ask(Method::GET, &output).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "hello\n");
    let nothing = world.ask(Method::POST, "/sandboxes/sb-01jd2x5c0pe3tt4m1q5a8z0v9k/erase");
    assert_eq!(error(nothing, 404).await, "NOT_FOUND");
}

/// Drops output up to a position, as retention does.
async fn expire(world: &World, up_to: Position) {
    let event = Event {
        id: EventId::new(),
        tenant: TenantId::system(),
        sandbox: None,
        time: events::Clock::now(&events::SystemClock),
        actor: Actor::Recorder,
        cause: None,
        request_id: None,
        traceparent: None,
        data: LogTrimmed { class: RetentionClass::Output, up_to, checkpoint: EventId::new() }.into(),
    };
    world.log.publish(&[event]).await.unwrap();
    while world.store.floors().await.unwrap().iter().all(|floor| floor.up_to < up_to) {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    while world.store.upkeep.drop_some(RetentionClass::Output).await.unwrap() > 0 {}
}

#[tokio::test]
async fn expired_output_is_a_hole_that_every_reader_sees() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "flood", 200).await["exec_id"].as_str().unwrap().to_owned();
    let chunks =
        world.store.output.read(exec.parse().unwrap(), OutputStream::Stdout, 0, usize::MAX).await.unwrap();
    let (first, last) = (&chunks[chunks.len() / 2], &chunks[chunks.len() - 1]);
    expire(&world, Position(first.position.0 - 1)).await;
    let output = |query: &str| world.ask(Method::GET, &format!("/execs/{exec}/output{query}")).send();
    for query in ["", "?offset=1", "?follow=true"] {
        let response = output(query).await.unwrap();
        assert_eq!(response.status(), 410, "{query}");
        assert_eq!(response.headers()["x-next-offset"], first.offset.to_string().as_str(), "{query}");
    }
    let response = output(&format!("?offset={}", first.offset)).await.unwrap();
    assert_eq!(response.bytes().await.unwrap().len() as u64, 400_000 - first.offset);
    let hole = |next: u64| json!({"type": "gone", "stream": "stdout", "data": "", "offset": 0, "next_offset": next, "why": "expired"});
    let seen = records(&world, &exec).await;
    // The first record is the id.
    assert_eq!(seen[1], hole(first.offset));
    assert_eq!(seen[2]["offset"], first.offset);
    assert_eq!(seen.last().unwrap()["outcome"], "exited");

    // All of it: a hole and the end, at once.
    expire(&world, last.position).await;
    let seen = records(&world, &exec).await;
    assert_eq!((&seen[1], seen.len()), (&hole(400_000), 3));
    assert_eq!(seen[2]["stdout_bytes"], 400_000);
    assert!(verify_store(&world.store, &PublicKeys::default()).await.unwrap().ok);
}
