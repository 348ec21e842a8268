//! What a dead Docker engine means: no new sandboxes, and no word lost of the old ones.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::api::Streamed;
use support::dockerd::Dockerd;
use support::eventually;
use support::serve::Serve;

#[tokio::test]
async fn sandboxes_work_on_while_the_engine_is_dead_and_the_log_says_what_its_return_ended() {
    let mut engine = Dockerd::start();
    let socket = engine.socket().display().to_string();
    let serve = Serve::with("docker", &[("STACYVM_PROVIDERS_DOCKER_SOCKET", &socket)]).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let answer = serve.api.start_stream(&sandbox, "echo begun; sleep 600").await;
    let stream = tokio::spawn(Streamed::read(answer, |_| {}));

    engine.kill();
    assert_eq!(serve.api.exec(&sandbox, "echo alive").await["stdout"], "alive\n");
    let (status, answer) = serve.api.post("/sandboxes", json!({"image": "alpine:latest"})).await;
    assert_eq!(status, 503, "{answer}");

    // An engine that starts ends the containers of the one before it.
    engine.restart();
    let streamed = tokio::time::timeout(Duration::from_secs(60), stream).await.unwrap().unwrap();
    assert_eq!(streamed.stdout, b"begun\n");
    assert!(streamed.ended, "the stream has no last record");
    eventually("the sandbox is gone", Duration::from_secs(60), async || {
        (serve.api.get(&format!("/sandboxes/{sandbox}")).await.0 == 404).then_some(())
    })
    .await;
    let another = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    assert_eq!(serve.api.exec(&another, "echo again").await["stdout"], "again\n");
    assert_eq!(serve.api.destroy(&another).await, 200);
}

#[test]
fn setup_gives_no_image_a_name_that_is_not_its_own() {
    let engine = Dockerd::start();
    let setup = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/setup");
    let output = std::process::Command::new(setup)
        .args(["--only", "images"])
        .env("DOCKER_HOST", format!("unix://{}", engine.socket().display()))
        .env("STACYVM_PULL", "0")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(engine.images(), ["stacyvm/base:local", "stacyvm/busybox:local"]);
}
