//! Nothing outlives its deadline, whoever is dead.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::eventually;
use support::serve::{Serve, running_containers};
use support::split::Split;

#[tokio::test]
async fn a_sandbox_ends_at_its_ttl_with_the_whole_control_plane_dead() {
    let mut split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "8s"})).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(8);
    let installation = split.installation();
    assert_eq!(running_containers(&installation), std::slice::from_ref(&sandbox));
    split.kill_control_plane();
    split.nats.kill();
    let patience = deadline + Duration::from_secs(5) - tokio::time::Instant::now();
    eventually("nothing runs in the container", patience, async || {
        running_containers(&installation).is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_log_says_that_a_sandbox_expired() {
    let serve = Serve::start().await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "3s"})).await;
    serve.container_gone(&sandbox, Duration::from_secs(8)).await;
    eventually("it is gone from the API", Duration::from_secs(10), async || {
        (serve.api.get(&format!("/sandboxes/{sandbox}")).await.0 == 404).then_some(())
    })
    .await;
    let (_, listed) = serve.api.get("/sandboxes").await;
    assert_eq!(listed, json!([]));
}

#[tokio::test]
async fn a_box_that_somebody_removed_is_noticed() {
    let serve = Serve::start().await;
    serve.api.spawn(json!({"image": "alpine:latest"})).await;
    support::serve::remove_containers(&serve.installation());
    eventually("it is gone from the list", Duration::from_secs(30), async || {
        (serve.api.get("/sandboxes").await.1 == json!([])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_that_no_executor_has_room_for_waits_no_longer_than_it_may() {
    let environment = [("STACYVM_NODE_CAPACITY", "1"), ("STACYVM_DEFAULTS_MAX_QUEUE_WAIT", "3s")];
    let serve = Serve::with("docker", &environment).await;
    let first = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let (status, answer) = serve.api.post("/sandboxes", json!({"image": "alpine:latest"})).await;
    assert_eq!(status, 429, "{answer}");
    let (_, listed) = serve.api.get("/sandboxes").await;
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(listed[0]["id"], first.as_str());
}
