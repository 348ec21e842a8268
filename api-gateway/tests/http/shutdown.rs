//! Stopping.

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::world::World;

#[tokio::test]
async fn streams_are_told_that_the_gateway_stops_and_can_be_resumed() {
    let mut world = World::start().await;
    let sandbox = world.sandbox().await;
    let body = json!({"command": "hang", "stream": true});
    let ask = |query: &str| {
        world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec{query}")).json(&body).send()
    };
    let exec = ask("?records=all").await.unwrap();
    let plain = ask("").await.unwrap();
    let mut lines = exec.bytes_stream();
    let mut text = String::new();
    while !text.contains("up") {
        text.push_str(std::str::from_utf8(&lines.next().await.unwrap().unwrap()).unwrap());
    }
    let events = world.ask(Method::GET, "/events").send().await.unwrap();

    world.stop.cancel();
    // The end of the body, in order: a broken connection would be an error.
    while let Some(part) = lines.next().await {
        text.push_str(std::str::from_utf8(&part.unwrap()).unwrap());
    }
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["outcome"], &last["stdout_bytes"], &last["error"]["code"]),
        (&json!("interrupted"), &json!(3), &json!("UNAVAILABLE"))
    );
    // Who is told nothing but output must not take this for the end of the command.
    let mut plain = plain.bytes_stream();
    let (mut text, mut broken) = (String::new(), false);
    while let Some(part) = plain.next().await {
        match part {
            Ok(part) => text.push_str(std::str::from_utf8(&part).unwrap()),
            Err(_) => broken = true,
        }
    }
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(
        (broken, &last["stream"], &last["error"]["code"]),
        (true, &json!("stderr"), &json!("UNAVAILABLE"))
    );
    events.text().await.unwrap();
    world.serving.take().unwrap().await.unwrap().unwrap();
    assert!(world.ask(Method::GET, "/health").send().await.is_err());
}
