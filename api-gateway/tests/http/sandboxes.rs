//! The life of a sandbox.

use reqwest::Method;
use serde_json::{Value, json};

use super::world::{World, error, json as body_of};

#[tokio::test]
async fn a_sandbox_is_made_extended_and_destroyed() {
    let world = World::start().await;
    let request = json!({"ttl": "5m", "metadata": {"k": "v"}, "env": {"TOKEN": "hunter2"}, "owner_id": "bob", "unknown": 1});
    let made = world.ask(Method::POST, "/sandboxes").header("X-User-ID", "alice").json(&request);
    let made = body_of(made, 201).await;
    let id = made["id"].as_str().unwrap();
    let fields = ["state", "provider", "image", "memory_mb", "vcpus", "owner_id", "tenant_id", "worker_id"];
    let fields: Vec<&Value> = fields.iter().map(|name| &made[name]).collect();
    assert_eq!(
        json!(fields),
        json!(["running", "docker", "alpine:latest", 512, 1, "alice", "red", "node-1"])
    );
    assert_eq!(world.get("/sandboxes").await, json!([made]));

    let longer = world.post(&format!("/sandboxes/{id}/extend"), json!({"ttl": "1h"}), 200).await;
    assert!(longer["expires_at"].as_str() > made["expires_at"].as_str(), "{longer}");
    let over = world.ask(Method::POST, &format!("/sandboxes/{id}/extend")).json(&json!({"ttl": "25h"}));
    assert_eq!(error(over, 400).await, "BAD_REQUEST");
    assert_eq!(world.delete("/sandboxes").await, json!({"pruned": 0}));

    assert_eq!(world.delete(&format!("/sandboxes/{id}")).await, json!({"status": "destroyed"}));
    assert_eq!(error(world.ask(Method::GET, &format!("/sandboxes/{id}")), 404).await, "NOT_FOUND");
    assert_eq!(world.get("/sandboxes").await, json!([]));
    let events =
        world.ask(Method::GET, "/events?after=0&follow=false").send().await.unwrap().text().await.unwrap();
    assert!(events.contains("TOKEN") && !events.contains("hunter2"), "{events}");
}

#[tokio::test]
async fn what_cannot_be_made_says_why() {
    let world = World::start().await;
    let spawn = |body: Value| world.ask(Method::POST, "/sandboxes").json(&body);
    let failed = body_of(spawn(json!({"image": "no/such:image"})), 400).await;
    assert_eq!(failed, json!({"code": "BAD_REQUEST", "message": "no registry has the image"}));
    assert_eq!(world.get("/sandboxes").await, json!([]));
    assert_eq!(error(spawn(json!({"provider": "none"})), 404).await, "NOT_FOUND");
    assert_eq!(error(spawn(json!({"template": "none"})), 404).await, "NOT_FOUND");
    assert_eq!(error(spawn(json!({"ttl": "25h"})), 400).await, "BAD_REQUEST");
    for path in ["/sandboxes/admission", "/templates/none/spawn"] {
        error(world.ask(Method::POST, path).body("{"), 400).await;
    }
}

#[tokio::test]
async fn a_pool_without_an_executor_is_unavailable_in_fixed_words() {
    let world = World::with(|_| {}, false).await;
    let spawn = body_of(world.ask(Method::POST, "/sandboxes").json(&json!({})), 503).await;
    assert_eq!(spawn["code"], "UNAVAILABLE");
    assert!(!spawn["message"].as_str().unwrap().contains("docker"), "{spawn}");
    let decision = world.post("/sandboxes/admission", json!({}), 200).await;
    assert_eq!((&decision["allowed"], &decision["reason"]), (&json!(false), &json!("worker_unavailable")));
    let providers = world.get("/providers").await;
    assert_eq!((&providers[0]["name"], &providers[0]["healthy"]), (&json!("docker"), &json!(false)));
}

#[tokio::test]
async fn admission_says_yes_and_makes_nothing() {
    let world = World::start().await;
    world.sandbox().await;
    let decision = body_of(world.ask(Method::POST, "/sandboxes/admission"), 200).await;
    assert_eq!(
        decision,
        json!({
            "allowed": true, "queueable": false, "reason": "", "active_sandboxes": 1, "max_sandboxes": 100,
            "active_owner_sandboxes": 0, "max_owner_sandboxes": 0, "max_ttl": "24h0m0s"
        })
    );
    let over = world.post("/sandboxes/admission", json!({"ttl": "25h"}), 200).await;
    assert_eq!((&over["allowed"], &over["reason"]), (&json!(false), &json!("max_ttl")));
    assert_eq!(world.get("/sandboxes").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn one_idempotency_key_is_one_sandbox() {
    let world = World::start().await;
    let spawn =
        |body: Value| world.ask(Method::POST, "/sandboxes").header("Idempotency-Key", "k1").json(&body);
    let all = futures::future::join_all((0..8).map(|_| body_of(spawn(json!({"ttl": "5m"})), 201))).await;
    assert!(all.iter().all(|sandbox| sandbox["id"] == all[0]["id"]), "{all:?}");
    assert_eq!(world.get("/sandboxes").await.as_array().unwrap().len(), 1);
    assert_eq!(error(spawn(json!({"ttl": "6m"})), 409).await, "CONFLICT");
    error(world.ask(Method::POST, "/sandboxes").header("Idempotency-Key", "a b").json(&json!({})), 400).await;
}

#[tokio::test]
async fn files_stats_and_logs_come_from_the_node() {
    let world = World::start().await;
    let id = world.sandbox().await;
    let base = format!("/sandboxes/{id}");
    let content: Vec<u8> = (0..3_000_000_u32).map(|byte| byte as u8).collect();
    let put = world.ask(Method::PUT, &format!("{base}/files?path=/a%20b")).body(content.clone());
    assert_eq!(body_of(put, 200).await, json!({"status": "written"}));
    let got = world.ask(Method::GET, &format!("{base}/files?path=/a+b")).send().await.unwrap();
    assert_eq!(got.headers()["content-type"], "application/octet-stream");
    assert!(got.bytes().await.unwrap() == content);
    let written = world.post(&format!("{base}/files"), json!({"path": "t", "content": "é"}), 200).await;
    assert_eq!(written, json!({"status": "written"}));
    assert_eq!(world.get(&format!("{base}/files/stat?path=t")).await["size"], 2);
    assert_eq!(world.get(&format!("{base}/files/glob?pattern=*")).await, json!([]));
    assert_eq!(error(world.ask(Method::GET, &format!("{base}/files?path=none")), 404).await, "NOT_FOUND");
    assert_eq!(
        world.get(&format!("{base}/stats")).await,
        json!({
            "supported": true, "cpu_pct": 1.5, "mem_bytes": 10, "mem_limit_bytes": 20
        })
    );
    let logs = world.get(&format!("{base}/logs")).await;
    let last = world.get(&format!("{base}/logs?lines=1")).await;
    assert!(logs[0].as_str().unwrap().contains("sandbox.requested alpine:latest on docker"), "{logs}");
    assert_eq!(last.as_array().unwrap().len(), 1);
}
