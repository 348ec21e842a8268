//! A server that a command leaves running in the background: the command is answered at once, and the server keeps its log.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::serve::Serve;

/// Says a line whenever it is let to.
const SERVER: &str = "(n=0; while :; do if test -e /workspace/go.$n; then echo request $n; n=$((n+1)); else sleep 0.05; fi; done) & echo up";

async fn state(serve: &Serve, exec: &str) -> Value {
    serve.api.get(&format!("/execs/{exec}")).await.1
}

async fn keeps_its_log(provider: &str) {
    let mut serve = Serve::with_provider(provider).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let answer = serve.api.exec(&sandbox, SERVER).await;
    assert_eq!((&answer["stdout"], &answer["exit_code"]), (&json!("up\n"), &json!(0)));
    let exec = answer["exec_id"].as_str().unwrap().to_owned();
    let shown = state(&serve, &exec).await;
    assert_eq!((&shown["state"], &shown["output_open"]), (&json!("exited"), &json!(true)), "{shown}");
    // Somebody follows from the start, over the end of the command.
    let (api, of) = (serve.api.clone(), exec.clone());
    let follower = tokio::spawn(async move {
        let mut all = Vec::new();
        (api.follow(&of, "stdout", 0, &mut all).await, all)
    });
    serve.api.exec(&sandbox, "touch /workspace/go.0").await;
    let until = async |serve: &Serve, wanted: &str| {
        let path = format!("/execs/{exec}/output");
        support::eventually("its line is recorded", Duration::from_secs(30), async || {
            let text = serve.api.http.get(serve.api.url(&path)).send().await.ok()?.text().await.ok()?;
            (text == wanted).then_some(())
        })
        .await;
    };
    until(&serve, "up\nrequest 0\n").await;
    serve.kill_and_restart().await;
    // It broke with the server: it did not end as if all had come.
    assert_eq!(follower.await.unwrap().0, None);
    serve.api.exec(&sandbox, "touch /workspace/go.1").await;
    until(&serve, "up\nrequest 0\nrequest 1\n").await;
    let listed = |states: &'static str| {
        let path = format!("/sandboxes/{sandbox}/execs?state={states}");
        let api = serve.api.clone();
        async move { api.get(&path).await.1["execs"].as_array().unwrap().len() }
    };
    assert_eq!((listed("running").await, listed("ended").await), (0, 3));
    let (api, of) = (serve.api.clone(), exec.clone());
    let follower = tokio::spawn(async move {
        let mut all = Vec::new();
        (api.follow(&of, "stdout", 3, &mut all).await, all)
    });
    assert_eq!(serve.api.destroy(&sandbox).await, 200);
    let (whole, all) = follower.await.unwrap();
    assert_eq!((whole, String::from_utf8(all).unwrap().as_str()), (Some(()), "request 0\nrequest 1\n"));
    let shown = state(&serve, &exec).await;
    assert_eq!((&shown["output_open"], &shown["output_closed"]["reason"]), (&Value::Null, &json!("sandbox")));
    let (_, audit) = serve.api.get(&format!("/sandboxes/{sandbox}/timeline?limit=1000")).await;
    let events = audit.to_string();
    assert_eq!(events.matches("exec.output_closed").count(), 1, "{events}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_the_background_keeps_its_log_in_docker() {
    keeps_its_log("docker").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_in_the_background_keeps_its_log_in_bubblewrap() {
    keeps_its_log("bubblewrap").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_closes_the_output_and_what_writes_it_goes_on() {
    let serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let command = "(while :; do echo x; echo x >>/workspace/seen; sleep 0.05; done) & echo up";
    let body = json!({"command": command, "linger": "0s"});
    let (status, answer) = serve.api.post(&format!("/sandboxes/{sandbox}/exec"), body).await;
    assert_eq!(status, 200, "{answer}");
    let exec = answer["exec_id"].as_str().unwrap().to_owned();
    let close = async || {
        let answer = serve.api.http.delete(serve.api.url(&format!("/execs/{exec}"))).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()
    };
    let closed = close().await;
    assert_eq!(closed["output_closed"]["reason"], "request", "{closed}");
    assert_eq!((&closed["state"], &closed["exit_code"]), (&json!("exited"), &json!(0)));
    // Twice is once.
    assert_eq!(close().await, closed);
    let count = async || serve.api.exec(&sandbox, "wc -l </workspace/seen").await["stdout"].clone();
    let before = count().await;
    support::eventually("it goes on", Duration::from_secs(30), async || {
        (count().await != before).then_some(())
    })
    .await;
    assert_eq!(state(&serve, &exec).await["stdout_bytes"], closed["stdout_bytes"]);
    for linger in ["11s", "-1s", "x"] {
        let body = json!({"command": "true", "linger": linger});
        assert_eq!(serve.api.post(&format!("/sandboxes/{sandbox}/exec"), body).await.0, 400, "{linger}");
    }
}
