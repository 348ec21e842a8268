//! A machine's clock that is set, forwards or backwards, ends nothing early and lets nobody in again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use support::eventually;
use support::serve::Serve;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// What shows a process another time of day, and leaves the clocks that nobody can set alone.
struct Shifted {
    file: PathBuf,
    _dir: tempfile::TempDir,
}

impl Shifted {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shifted = Self { file: dir.path().join("shift"), _dir: dir };
        shifted.set(0);
        shifted
    }

    /// Sets the clock this far ahead of what it really is.
    fn set(&self, seconds: i64) {
        let partial = self.file.with_extension("new");
        std::fs::write(&partial, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(partial, &self.file).unwrap();
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let library = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
        assert!(Path::new(library).is_file(), "libfaketime is not installed: run scripts/setup");
        vec![
            ("LD_PRELOAD", library.to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.display().to_string()),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("FAKETIME_DONT_RESET", "1".to_owned()),
        ]
    }
}

async fn ahead(serve: &Serve) -> f64 {
    let answer = serve.api.http.get(serve.api.url("/metrics/prometheus")).send().await.unwrap();
    let text = answer.text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("stacyvm_clock_ahead_seconds ")).unwrap();
    value.parse().unwrap()
}

async fn until_ahead(serve: &Serve, seconds: f64) {
    eventually("the jump is noticed", Duration::from_secs(30), async || {
        ((ahead(serve).await - seconds).abs() < 5.0).then_some(())
    })
    .await;
}

async fn ticket(serve: &Serve) -> String {
    let (status, answer) = serve.api.post("/tickets", json!({})).await;
    assert_eq!(status, 201, "{answer}");
    answer["ticket"].as_str().unwrap().to_owned()
}

/// Whether a ticket opens the feed of events.
async fn lets_in(serve: &Serve, ticket: &str) -> bool {
    let url = serve.api.url("/events/ws").replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    let offered = format!("stacyvm.v1, ticket.{ticket}").parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", offered);
    match tokio_tungstenite::connect_async(request).await {
        Ok(_) => true,
        Err(tokio_tungstenite::tungstenite::Error::Http(answer)) => {
            assert_eq!(answer.status().as_u16(), 401);
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_clock_that_jumps_destroys_nothing_and_lets_nobody_in_again() {
    let clock = Shifted::new();
    let environment = clock.environment();
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let serve = Serve::with("bubblewrap", &environment).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "20m"})).await;
    let used = ticket(&serve).await;
    assert!(lets_in(&serve, &used).await);

    clock.set(2 * 3600);
    until_ahead(&serve, 7200.0).await;
    // One whose time really passes meanwhile ends, and not before.
    let short = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "6s"})).await;
    assert_eq!(serve.api.exec(&short, "echo here").await["stdout"], "here\n");
    eventually("what has no time left ends", Duration::from_secs(30), async || {
        (serve.api.get(&format!("/sandboxes/{short}")).await.0 == 404).then_some(())
    })
    .await;
    let (status, state) = serve.api.get(&format!("/sandboxes/{sandbox}")).await;
    assert_eq!((status, &state["state"]), (200, &json!("running")), "{state}");
    assert_eq!(serve.api.exec(&sandbox, "echo here").await["stdout"], "here\n");
    let unused = ticket(&serve).await;

    clock.set(-3600);
    until_ahead(&serve, -3600.0).await;
    assert!(!lets_in(&serve, &used).await);
    assert!(lets_in(&serve, &unused).await);
    assert!(!lets_in(&serve, &unused).await);
    assert_eq!(serve.api.exec(&sandbox, "echo here").await["stdout"], "here\n");

    clock.set(0);
    until_ahead(&serve, 0.0).await;
    let log = serve.process.log_text();
    assert_eq!(log.matches("the machine's clock jumped").count(), 2, "{log}");
    assert_eq!(log.matches("back on its course").count(), 1, "{log}");
    assert_eq!(serve.api.destroy(&sandbox).await, 200);
}
