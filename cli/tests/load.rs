//! Many at once, and some who do not play along.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::serve::Serve;

#[tokio::test]
async fn twenty_sandboxes_start_at_once_and_none_waits_for_anothers_image() {
    let serve = Serve::start().await;
    // An image that no registry has: its pull fails or hangs, and is nobody else's business.
    let missing = {
        let api = serve.api.clone();
        tokio::spawn(async move {
            api.post("/sandboxes", json!({"image": "registry.invalid/no/such:image"})).await
        })
    };
    let mut clients = Vec::new();
    for number in 0..20 {
        let api = serve.api.clone();
        clients.push(tokio::spawn(async move {
            let sandbox = api.spawn(json!({"image": "alpine:latest", "ttl": "5m", "memory_mb": 64})).await;
            let answer = api.exec(&sandbox, &format!("echo {number}")).await;
            assert_eq!(answer["stdout"], format!("{number}\n"));
            sandbox
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    let (_, listed) = serve.api.get("/sandboxes").await;
    assert_eq!(listed.as_array().unwrap().iter().filter(|sandbox| sandbox["state"] == "running").count(), 20);
    let (status, answer) = missing.await.unwrap();
    assert!((400..500).contains(&status), "{status}: {answer}");
    assert!(answer["message"].as_str().unwrap().contains("image"), "{answer}");
}

#[tokio::test]
async fn a_reader_who_does_not_read_costs_little_and_disturbs_nobody() {
    let serve = Serve::start().await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let other = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    // Printed for as long as the test runs; the answer is held, and not read.
    let held = serve.api.start_stream(&sandbox, "yes 'an endless line of output'").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = serve.process.rss_kib();
    for round in 0..50 {
        let answer = serve.api.exec(&other, &format!("echo {round}")).await;
        assert_eq!(answer["stdout"], format!("{round}\n"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = serve.process.rss_kib();
    assert!(after < 400 * 1024, "{} MiB resident, {} MiB before", after / 1024, before / 1024);
    drop(held);
    assert_eq!(serve.api.destroy(&sandbox).await, 200);
}
