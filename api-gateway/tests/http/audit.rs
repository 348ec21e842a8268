//! The audit routes: what a tenant sees of them, and an operator.

use reqwest::Method;
use serde_json::Value;

use super::world::{BLUE, OPERATOR, World, error, json};

async fn page(world: &World, key: &str, query: &str) -> Value {
    json(world.ask_as(key, Method::GET, &format!("/audit{query}")), 200).await
}

async fn text(world: &World, key: &str, query: &str) -> String {
    let request = world.ask_as(key, Method::GET, &format!("/audit/export{query}"));
    request.send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_audits_itself_and_an_operator_audits_everybody() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    world.exec(&sandbox, "echo hi", 200).await;

    let mine = world.get(&format!("/audit?sandbox={sandbox}")).await;
    let events = mine["events"].as_array().unwrap();
    assert_eq!(events[0]["type"], "sandbox.requested");
    assert_eq!(events[0]["actor"], "client:key-of-red");
    assert!(events.iter().all(|event| event["tenant"] == "red" && event["sandbox_id"] == sandbox.as_str()));
    assert_eq!(mine["next_after"], Value::Null);
    assert_eq!(page(&world, OPERATOR, "?tenant=red").await["events"].as_array().unwrap().len(), events.len());
    assert!(!page(&world, OPERATOR, "?type=sandbox.*").await["events"].as_array().unwrap().is_empty());

    // Pages of two put together are the same, both ways.
    for order in ["asc", "desc"] {
        let (mut positions, mut after) = (Vec::new(), String::new());
        loop {
            let part = world.get(&format!("/audit?limit=2&order={order}{after}")).await;
            positions.extend(
                part["events"].as_array().unwrap().iter().map(|event| event["position"].as_u64().unwrap()),
            );
            match part["next_after"].as_u64() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        if order == "desc" {
            positions.reverse();
        }
        let all: Vec<u64> = events.iter().map(|event| event["position"].as_u64().unwrap()).collect();
        assert_eq!(positions, all, "{order}");
    }

    // Another tenant sees none of it, however it asks.
    assert_eq!(page(&world, BLUE, "").await["events"], serde_json::json!([]));
    assert_eq!(page(&world, BLUE, &format!("?sandbox={sandbox}")).await["events"], serde_json::json!([]));
    for path in
        ["/audit?tenant=red", "/audit/export?tenant=red", "/audit/verify?tenant=red", "/audit?tenant=*"]
    {
        assert_eq!(error(world.ask_as(BLUE, Method::GET, path), 404).await, "NOT_FOUND", "{path}");
    }
    for form in ["ndjson", "csv", "cloudevents"] {
        assert!(!text(&world, BLUE, &format!("?format={form}")).await.contains(&sandbox), "{form}");
        assert!(text(&world, OPERATOR, &format!("?format={form}")).await.contains(&sandbox), "{form}");
    }
    let verified = json(world.ask_as(BLUE, Method::GET, "/audit/verify"), 200).await;
    assert_eq!((&verified["ok"], &verified["events"]), (&Value::Bool(true), &Value::from(0)));
    let verified = world.get("/audit/verify").await;
    assert_eq!((&verified["ok"], &verified["events"]), (&Value::Bool(true), &Value::from(events.len())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_and_filters_of_what_must_be_whole_are_refused() {
    let world = World::start().await;
    for path in [
        "/audit?limit=0",
        "/audit?order=up",
        "/audit?type=exec.nothing",
        "/audit?from=yesterday",
        "/audit?after=x",
        "/audit/export?format=xml",
        "/audit/export?bodies=perhaps",
        "/audit/export?type=exec.exited",
    ] {
        assert_eq!(error(world.ask(Method::GET, path), 400).await, "BAD_REQUEST", "{path}");
    }
}
