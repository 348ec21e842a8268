//! Erasing what a sandbox wrote.

use events::recorder::verify;
use events::{EventFilter, Position};
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
    verify(&*world.store).await.unwrap();
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
