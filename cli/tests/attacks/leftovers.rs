//! What commands leave running behind their end, to be read for ever.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::serve::Serve;

/// It writes without end after its command has ended: its output is closed at the limit, which is told, and others are served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_writes_for_ever_is_closed_at_the_limit() {
    let serve = Serve::with_config("bubblewrap", &[], "node:\n  max_output: 1MiB\n").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let answer = serve.api.exec(&sandbox, "(sleep 0.5; exec yes) & echo up").await;
    assert_eq!(answer["stdout"], "up\n", "{answer}");
    let path = format!("/execs/{}", answer["exec_id"].as_str().unwrap());
    let closed = eventually("its output is closed", Duration::from_secs(60), async || {
        let shown = serve.api.get(&path).await.1;
        (shown["output_closed"]["reason"] == "limit").then_some(shown)
    })
    .await;
    assert_eq!(closed["stdout_bytes"], 1 << 20, "{closed}");
    assert!(closed["truncated_bytes"].as_u64().unwrap() > 0, "{closed}");
    assert_eq!(serve.api.exec(&sandbox, "echo next").await["stdout"], "next\n");
}

/// Of many that leave something behind only the newest stay open, whoever is the oldest hears why, and nothing is left of them when the
/// sandbox goes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_leave_children_a_few_stay_open() {
    let serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "memory_mb": 256})).await;
    // As many as the sandbox has room for, one after the other and side by side.
    let mut execs = Vec::new();
    for _ in 0..10 {
        let some = (0..6).map(|_| async {
            let body = json!({"command": "sleep 1000 & echo up", "linger": "0s"});
            serve.api.post(&format!("/sandboxes/{sandbox}/exec"), body).await
        });
        for (status, answer) in futures::future::join_all(some).await {
            assert_eq!(status, 200, "{answer}");
            execs.push(answer["exec_id"].as_str().unwrap().to_owned());
        }
    }
    let count = async |field: fn(&Value) -> bool| {
        let mut found = 0;
        for exec in &execs {
            found += usize::from(field(&serve.api.get(&format!("/execs/{exec}")).await.1));
        }
        found
    };
    eventually("32 are open, and the others are told to be too many", Duration::from_secs(60), async || {
        let open = count(|exec| exec["output_open"] == true).await;
        let closed = count(|exec| exec["output_closed"]["reason"] == "too_many").await;
        ((open, closed) == (32, 28)).then_some(())
    })
    .await;
    assert_eq!(serve.api.exec(&sandbox, "echo next").await["stdout"], "next\n");
    assert_eq!(serve.api.destroy(&sandbox).await, 200);
    assert_eq!(count(|exec| exec["output_open"] == true).await, 0);
    assert_eq!(count(|exec| exec["output_closed"]["reason"] == "sandbox").await, 32);
}
