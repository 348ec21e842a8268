//! What nobody waits for any more does not begin, and what has to outlive its caller does.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::eventually;
use support::process::{SIGCONT, SIGSTOP};
use support::split::Split;

struct Answer {
    status: u16,
    body: Value,
    exec: String,
    took: Duration,
}

/// Asks for a line in a file, and waits for the answer.
async fn note(split: &Split, sandbox: &str, what: &str) -> Answer {
    let began = Instant::now();
    let body = json!({"command": format!("echo {what} >> /tmp/notes"), "timeout": "20s"});
    let url = split.api.url(&format!("/sandboxes/{sandbox}/exec"));
    let answer = split.api.http.post(url).json(&body).send().await.unwrap();
    let exec = answer.headers()["x-exec-id"].to_str().unwrap().to_owned();
    let status = answer.status().as_u16();
    Answer { status, exec, body: answer.json().await.unwrap(), took: began.elapsed() }
}

async fn notes(split: &Split, sandbox: &str) -> Value {
    split.api.exec(sandbox, "cat /tmp/notes").await["stdout"].clone()
}

/// Far below what an exec may take, and far above what a refusal takes on a busy machine.
const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_exec_at_an_executor_that_is_gone_is_refused_soon_and_never_runs_and_a_detached_one_does() {
    let mut split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    assert_eq!(note(&split, &sandbox, "before").await.status, 200);
    split.executor.kill();
    let refused = note(&split, &sandbox, "refused").await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.took < SOON, "refused only after {:?}", refused.took);
    eprintln!("refused after {:?}", refused.took);
    let detached = json!({"command": "echo detached >> /tmp/notes", "detach": true});
    let (status, answer) = split.api.post(&format!("/sandboxes/{sandbox}/exec"), detached).await;
    assert_eq!(status, 202, "{answer}");
    let detached = answer["exec_id"].as_str().unwrap().to_owned();
    split.restart_executor();
    eventually("the detached one has run", Duration::from_secs(60), async || {
        let (_, state) = split.api.get(&format!("/execs/{detached}")).await;
        (state["exit_code"] == 0).then_some(())
    })
    .await;
    assert_eq!(note(&split, &sandbox, "after").await.status, 200);
    assert_eq!(notes(&split, &sandbox).await, "before\ndetached\nafter\n");
    let found = split.api.get(&format!("/execs/{}", refused.exec)).await;
    assert_eq!(found.0, 404, "there is nothing to be found of it: {}", found.1);
}

#[tokio::test]
async fn an_exec_that_waited_in_the_socket_of_a_frozen_executor_does_not_begin() {
    let split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    assert_eq!(note(&split, &sandbox, "before").await.status, 200);
    split.executor.signal(SIGSTOP);
    let asked: Vec<_> = (0..3).map(|n| format!("frozen-{n}")).collect();
    let answers = futures::future::join_all(asked.iter().map(|what| note(&split, &sandbox, what))).await;
    split.executor.signal(SIGCONT);
    for answer in answers {
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.took < SOON, "refused only after {:?}", answer.took);
    }
    eventually("the executor works again", Duration::from_secs(60), async || {
        (note(&split, &sandbox, "after").await.status == 200).then_some(())
    })
    .await;
    let left = notes(&split, &sandbox).await;
    assert!(!left.to_string().contains("frozen"), "{left}");
}

/// The same key again is the same exec, also where the first answer was lost with the gateway.
#[tokio::test]
async fn an_exec_whose_gateway_dies_runs_once() {
    let mut split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let url = split.api.url(&format!("/sandboxes/{sandbox}/exec"));
    let body = json!({"command": "sleep 1; echo once >> /tmp/notes", "timeout": "20s"});
    let ask = || split.api.http.post(&url).header("Idempotency-Key", "once").json(&body).send();
    let first = tokio::spawn(ask());
    tokio::time::sleep(Duration::from_millis(500)).await;
    split.restart_gateway().await;
    first.await.unwrap().expect_err("its gateway is gone");
    let ask = || split.api.http.post(&url).header("Idempotency-Key", "once").json(&body).send();
    let again: Value = ask().await.unwrap().json().await.unwrap();
    assert_eq!(again["exit_code"], 0, "{again}");
    assert_eq!(notes(&split, &sandbox).await, "once\n");
}
