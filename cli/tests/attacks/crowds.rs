//! Many agents that say nothing, and many calls at each: every call keeps a connection for as long as it waits.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::agents::{agent_of, signal};
use crate::support::api::Api;
use crate::support::serve::Serve;
use crate::support::{eventually, keys};

const DESCRIPTORS: u64 = 512;
const SILENT: usize = 10;
/// Fewer than the connections of clients that there are: those have limits and a test of their own.
const CALLS: usize = 9;
const EXECS: usize = 2;
const PATIENCE: Duration = Duration::from_secs(60);
const RED: &str = "key-of-the-tenant-that-attacks";
const GREEN: &str = "key-of-another-that-attacks-too";
const BLUE: &str = "key-of-the-tenant-that-works";

fn client(serve: &Serve, key: &'static str, last: u8) -> Api {
    let http = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(0)
        .local_address(std::net::IpAddr::from([127, 0, 2, last]))
        .default_headers(keys::headers(key))
        .timeout(PATIENCE)
        .build()
        .unwrap();
    Api { base: serve.api.base.clone(), http }
}

/// What another tenant does all day.
async fn works(serve: &Serve, api: &Api, sandbox: &str) {
    let log = || serve.process.log_text();
    let base = format!("/sandboxes/{sandbox}");
    let (status, answer) = api.post(&format!("{base}/exec"), json!({"command": "echo works"})).await;
    assert_eq!((status, &answer["stdout"]), (200, &json!("works\n")), "{answer}\n{}", log());
    let (status, answer) = api.get(&format!("{base}/files/stat?path=/etc/passwd")).await;
    assert_eq!(status, 200, "{answer}\n{}", log());
    let (status, made) = api.post("/sandboxes", json!({"image": "alpine:latest"})).await;
    assert_eq!(status, 201, "{made}\n{}", log());
    assert_eq!(api.destroy(made["id"].as_str().unwrap()).await, 200, "{}", log());
}

/// A call that its agent never answers.
async fn ask(api: Api, path: String, exec: bool) -> Option<(u16, Value)> {
    let request = if exec {
        api.http.post(api.url(&format!("{path}/exec"))).json(&json!({"command": "true", "detach": true}))
    } else {
        api.http.get(api.url(&format!("{path}/files/stat?path=/etc/passwd")))
    };
    let answer = request.send().await.ok()?;
    Some((answer.status().as_u16(), answer.json().await.unwrap_or_default()))
}

#[tokio::test]
async fn agents_that_say_nothing_leave_connections_to_others() {
    let keys = keys::config(&[("red", RED, false), ("green", GREEN, false), ("blue", BLUE, false)]);
    let serve = Serve::with_descriptors("bubblewrap", DESCRIPTORS, &keys).await;
    let blue = client(&serve, BLUE, 1);
    let sandbox = blue.spawn(json!({"image": "alpine:latest"})).await;
    let mut silent = Vec::new();
    for (key, last) in [(RED, 2), (GREEN, 3)] {
        let attacker = client(&serve, key, last);
        for _ in 0..SILENT {
            let victim = attacker.spawn(json!({"image": "alpine:latest"})).await;
            signal(agent_of(&victim), "-STOP");
            silent.push((attacker.clone(), victim));
        }
    }
    works(&serve, &blue, &sandbox).await;
    let mut asked = JoinSet::new();
    for number in 0..CALLS + EXECS {
        for (attacker, victim) in &silent {
            asked.spawn(ask(attacker.clone(), format!("/sandboxes/{victim}"), number < EXECS));
        }
    }
    let (mut most, mut answers) = (0, Vec::new());
    while !asked.is_empty() {
        works(&serve, &blue, &sandbox).await;
        most = most.max(serve.process.descriptors());
        while let Some(answer) = asked.try_join_next() {
            answers.extend(answer.unwrap());
        }
    }
    eprintln!("{most} descriptors at most, {} answers", answers.len());
    assert!(most < DESCRIPTORS as usize - 48, "{most} descriptors");
    let full = "too many calls to sandboxes are under way on this node";
    let is_full = |answer: &Value| answer["message"].as_str().is_some_and(|text| text.contains(full));
    assert!(answers.iter().any(|(status, answer)| *status == 429 && is_full(answer)), "{answers:?}");
    // No answer is made up, and none is a fault of ours.
    assert!(answers.iter().all(|(status, _)| [200, 201, 202, 429, 503].contains(status)), "{answers:?}");
    for (attacker, victim) in &silent {
        eventually("a sandbox is destroyed", PATIENCE, async || {
            ([200, 202, 404].contains(&attacker.destroy(victim).await)).then_some(())
        })
        .await;
    }
    for (attacker, victim) in &silent {
        eventually("the sandbox is gone", PATIENCE, async || {
            let (status, state) = attacker.get(&format!("/sandboxes/{victim}")).await;
            (status == 404 || state["state"] == "destroyed").then_some(())
        })
        .await;
    }
    works(&serve, &blue, &sandbox).await;
}
