//! Webhooks, as far as the gateway has to do with them: nobody delivers here.

use api_gateway::WebhookLimits;
use events::Position;
use record::EventFilter;
use reqwest::Method;
use secrets::WebhookSecret;
use serde_json::{Value, json};

use super::world::{BLUE, World, error, json as body_of};

const URL: &str = "https://ci.example/hook";

async fn webhook(world: &World, body: Value) -> (String, Value) {
    let answer = world.post("/webhooks", body, 201).await;
    (format!("/webhooks/{}", answer["id"].as_str().unwrap()), answer)
}

#[tokio::test]
async fn a_webhook_is_made_changed_moved_and_deleted_and_its_secret_shown_once() {
    let world = World::with(|_| {}, false).await;
    let (path, made) = webhook(&world, json!({"url": URL, "types": ["sandbox.*"], "from": 1})).await;
    assert!(made["secret"].as_str().unwrap().parse::<WebhookSecret>().is_ok());
    assert_eq!((&made["state"], &made["cursor"], &made["lag"]), (&json!("active"), &json!(0), &json!(0)));
    let shown = world.get(&path).await;
    let mut expected = made.clone();
    expected.as_object_mut().unwrap().remove("secret");
    assert_eq!(shown, expected);
    assert_eq!(world.get("/webhooks").await, json!([expected]));

    let own = WebhookSecret::random().unwrap().reveal();
    let change = json!({"url": URL, "description": "builds", "secret": own});
    let changed = body_of(world.ask(Method::PUT, &path).json(&change), 200).await;
    assert_eq!((&changed["secret"], &changed["types"]), (&json!(own), &json!([])));
    let change = json!({"url": URL});
    assert!(body_of(world.ask(Method::PUT, &path).json(&change), 200).await.get("secret").is_none());
    let change = json!({"url": URL, "from": 1});
    assert_eq!(error(world.ask(Method::PUT, &path).json(&change), 400).await, "BAD_REQUEST");

    let moved = world.post(&format!("{path}/redeliver"), json!({"from": "now"}), 200).await;
    assert!(moved["cursor"].as_u64().unwrap() >= 3, "{moved}");
    for from in [json!({}), json!({"from": "then"}), json!({"from": 1_000_000})] {
        let request = world.ask(Method::POST, &format!("{path}/redeliver")).json(&from);
        assert_eq!(error(request, 400).await, "BAD_REQUEST");
    }
    assert_eq!(world.delete(&path).await, json!({"status": "deleted"}));
    assert_eq!(error(world.ask(Method::GET, &path), 404).await, "NOT_FOUND");
    assert_eq!(world.get("/webhooks").await, json!([]));

    // Neither secret is in the record.
    let frames = world.store.read(&EventFilter::default(), Position::ZERO, 100).await.unwrap();
    assert!(frames.len() >= 5);
    for secret in [made["secret"].as_str().unwrap(), &own] {
        for frame in &frames {
            assert!(
                !String::from_utf8_lossy(&frame.header).contains(&secret[6..]),
                "{secret} is in the record"
            );
        }
    }
}

#[tokio::test]
async fn another_tenants_webhook_does_not_exist() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let (path, _) = webhook(&world, json!({"url": URL, "sandbox": sandbox})).await;
    let nothing = json!({"url": URL});
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::PUT, path.clone()),
        (Method::DELETE, path.clone()),
        (Method::POST, format!("{path}/redeliver")),
        (Method::POST, format!("{path}/ping")),
        (Method::GET, "/webhooks/wh-00000000000000000000000000".to_owned()),
        (Method::GET, "/webhooks/rubbish".to_owned()),
    ] {
        let request = world.ask_as(BLUE, method.clone(), &path).json(&nothing);
        assert_eq!(error(request, 404).await, "NOT_FOUND", "{method} {path}");
    }
    assert_eq!(body_of(world.ask_as(BLUE, Method::GET, "/webhooks"), 200).await, json!([]));
    // Nor does another tenant's sandbox.
    let body = json!({"url": URL, "sandbox": sandbox});
    assert_eq!(error(world.ask_as(BLUE, Method::POST, "/webhooks").json(&body), 404).await, "NOT_FOUND");
    assert_eq!(world.get(&path).await["state"], "active");
}

#[tokio::test]
async fn a_tenant_has_so_many_and_no_more() {
    let change = |config: &mut api_gateway::GatewayConfig| {
        config.webhooks = WebhookLimits { max_per_tenant: 2, ..WebhookLimits::default() };
    };
    let world = World::with(change, false).await;
    let (first, _) = webhook(&world, json!({"url": URL})).await;
    webhook(&world, json!({"url": URL})).await;
    let request = || world.ask(Method::POST, "/webhooks").json(&json!({"url": URL}));
    assert_eq!(error(request(), 409).await, "CONFLICT");
    body_of(world.ask_as(BLUE, Method::POST, "/webhooks").json(&json!({"url": URL})), 201).await;
    world.delete(&first).await;
    body_of(request(), 201).await;
}

#[tokio::test]
async fn lag_tells_whether_anything_waits() {
    let world = World::with(|_| {}, false).await;
    let (path, _) = webhook(&world, json!({"url": URL, "types": ["template.saved"]})).await;
    world.post("/webhooks", json!({"url": URL}), 201).await;
    assert_eq!(world.get(&path).await["lag"], 0, "nothing that it wants has happened");
    world.post("/templates", json!({"name": "a", "image": "i"}), 201).await;
    world.post("/templates", json!({"name": "b", "image": "i"}), 201).await;
    assert_eq!(world.get(&path).await["lag"], 2);
}
