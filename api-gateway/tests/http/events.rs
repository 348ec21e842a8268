//! Server-sent events.

use reqwest::Method;
use serde_json::Value;

use super::world::{World, error};

/// Positions and records.
fn parse(text: &str) -> Vec<(u64, Value)> {
    text.split("\n\n")
        .filter_map(|block| {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            Some((field("id: ")?.parse().unwrap(), serde_json::from_str(field("data: ")?).unwrap()))
        })
        .collect()
}

#[tokio::test]
async fn events_are_read_again_from_any_position() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    world.exec(&sandbox, "hello", 200).await;
    let read = async |path: &str, last: Option<u64>| {
        let mut request = world.ask(Method::GET, path);
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        parse(&request.send().await.unwrap().text().await.unwrap())
    };
    let all = read("/events?after=0&follow=false", None).await;
    let types: Vec<&str> = all.iter().map(|(_, event)| event["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "sandbox.requested",
            "sandbox.starting",
            "sandbox.running",
            "exec.started",
            "exec.output",
            "exec.output",
            "exec.exited"
        ]
    );
    assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0));
    assert!(
        all.iter().all(|(_, event)| event["sandbox_id"] == sandbox
            && event["timestamp"].as_str().unwrap().ends_with('Z'))
    );
    assert_eq!(read("/events?after=0&follow=false", Some(all[2].0)).await, all[3..]);
    assert_eq!(read(&format!("/events?after=0&follow=false&sandbox_id={sandbox}"), None).await, all);
    let exits = read("/events?after=0&follow=false&types=exec.exited,sandbox.running", None).await;
    assert_eq!(exits, [all[2].clone(), all[6].clone()]);
    assert!(read("/events?follow=false", None).await.is_empty());
    for path in ["/events?after=x", "/events?types=none", "/events?follow=maybe", "/events?sandbox_id=x"] {
        assert_eq!(error(world.ask(Method::GET, path), 400).await, "BAD_REQUEST", "{path}");
    }
}

#[tokio::test]
async fn a_follower_sees_what_happens_while_it_looks() {
    let world = World::start().await;
    let mut response = world.ask(Method::GET, "/events").send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let sandbox = world.sandbox().await;
    world.delete(&format!("/sandboxes/{sandbox}")).await;
    let mut text = String::new();
    while !text.contains("sandbox.destroyed") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert_eq!(parse(&text)[0].1["type"], "sandbox.requested");
}

#[tokio::test]
async fn what_the_store_cannot_give_is_not_taken_for_the_end() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "hello", 200).await["exec_id"].as_str().unwrap().to_owned();
    world.store.close().await;
    for path in ["/events?after=0&follow=false", "/events?after=0"] {
        let text = match world.ask(Method::GET, path).send().await {
            // Said before the stream began.
            Ok(response) if response.status() == 503 => continue,
            Ok(response) => response.text().await,
            Err(error) => Err(error),
        };
        assert!(text.is_err(), "{path}: {text:?}");
    }
    for path in
        [format!("/execs/{exec}"), format!("/execs/{exec}/output"), format!("/sandboxes/{sandbox}/logs")]
    {
        assert_eq!(error(world.ask(Method::GET, &path), 503).await, "UNAVAILABLE", "{path}");
    }
}
