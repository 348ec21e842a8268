//! One tenant attacks from five sandboxes, again and again: what that costs everybody else.
//!
//! How much slower another tenant gets is measured by `bench --only siege`, which attacks with the same lines.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::api::Api;
use crate::support::serve::Serve;
use crate::support::{eventually, keys};

/// A name and a shell line each; `bench` uses the same.
const LINES: &str = include_str!("siege.txt");
pub const RED: &str = "key-of-the-tenant-that-attacks";
pub const BLUE: &str = "key-of-the-tenant-that-works";
/// How much more memory the server may have than at rest: what an operator leaves free beside it.
const MORE_KIB: u64 = 200 * 1024;

pub fn keys() -> String {
    keys::config(&[("red", RED, false), ("blue", BLUE, false)])
}

pub fn client(serve: &Serve, key: &'static str) -> Api {
    let http = reqwest::Client::builder()
        .no_proxy()
        .pool_max_idle_per_host(1)
        .default_headers(keys::headers(key))
        .build()
        .unwrap();
    Api { base: serve.api.base.clone(), http }
}

/// Attacks with one line until it is over. Whatever is answered is right, as long as something is.
async fn attack(api: Api, line: &'static str, over: Arc<AtomicBool>, rounds: Arc<AtomicUsize>) {
    let patience = Duration::from_secs(30);
    while !over.load(Ordering::Acquire) {
        let asked =
            api.http.post(api.url("/sandboxes")).json(&json!({"image": "alpine:latest", "ttl": "30s"}));
        let spawned = match asked.timeout(patience).send().await {
            Ok(answer) => answer.json::<serde_json::Value>().await.unwrap_or_default(),
            Err(_) => continue,
        };
        let Some(sandbox) = spawned["id"].as_str() else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        let exec = api.url(&format!("/sandboxes/{sandbox}/exec"));
        let strike = json!({"command": line, "timeout": "10s"});
        let _ = api.http.post(&exec).json(&strike).timeout(patience).send().await;
        // What comes after the blow has to cope with what it left.
        let after = (0..20).map(|_| async {
            let body = json!({"command": "cat /etc/passwd", "timeout": "2s"});
            let _ = api.http.post(&exec).json(&body).timeout(patience).send().await;
            let read = api.url(&format!("/sandboxes/{sandbox}/files?path=/etc/passwd"));
            let _ = api.http.get(read).timeout(Duration::from_secs(2)).send().await;
        });
        futures::future::join_all(after).await;
        let gone = api.http.delete(api.url(&format!("/sandboxes/{sandbox}"))).timeout(patience).send().await;
        if gone.is_ok() {
            rounds.fetch_add(1, Ordering::AcqRel);
        }
    }
}

async fn work(api: &Api, sandbox: &str) {
    let body = json!({"command": "echo blue", "timeout": "30s"});
    let (status, answer) = api.post(&format!("/sandboxes/{sandbox}/exec"), body).await;
    assert_eq!((status, &answer["stdout"]), (200, &json!("blue\n")), "{answer}");
}

async fn others_work_on(provider: &str) {
    let mut serve = Serve::with_config(provider, &[], &keys()).await;
    let (red, blue) = (client(&serve, RED), client(&serve, BLUE));
    let sandbox = blue.spawn(json!({"image": "alpine:latest"})).await;
    for _ in 0..20 {
        work(&blue, &sandbox).await;
    }
    let (idle_kib, idle_descriptors) = (serve.process.rss_kib(), serve.process.descriptors());
    let over = Arc::new(AtomicBool::new(false));
    let rounds = Arc::new(AtomicUsize::new(0));
    let lines: Vec<&'static str> = LINES.lines().filter_map(|line| Some(line.split_once(": ")?.1)).collect();
    assert_eq!(lines.len(), 5);
    let attackers: Vec<_> = lines
        .into_iter()
        .map(|line| tokio::spawn(attack(red.clone(), line, Arc::clone(&over), Arc::clone(&rounds))))
        .collect();
    let mut worst_kib = 0;
    for restart in [true, false] {
        let done = rounds.load(Ordering::Acquire);
        let began = std::time::Instant::now();
        while rounds.load(Ordering::Acquire) < done + 5 {
            assert!(began.elapsed() < Duration::from_secs(120), "the attacks stand still");
            work(&blue, &sandbox).await;
            worst_kib = worst_kib.max(serve.process.rss_kib());
        }
        if restart {
            let began = std::time::Instant::now();
            serve.kill_and_restart().await;
            let took = began.elapsed();
            eprintln!("{provider}: ready {took:?} after SIGKILL under attack");
            assert!(took < Duration::from_secs(20), "ready only {took:?} after a restart under attack");
        }
    }
    over.store(true, Ordering::Release);
    for attacker in attackers {
        attacker.await.unwrap();
    }
    eprintln!("{provider}: RSS {idle_kib} KiB at rest, {worst_kib} KiB at worst");
    assert!(worst_kib < idle_kib + MORE_KIB, "RSS went from {idle_kib} KiB to {worst_kib} KiB");
    eventually("descriptors are given back", Duration::from_secs(60), async || {
        let now = serve.process.descriptors();
        if now > idle_descriptors + 20 {
            eprintln!("{provider}: {now} descriptors, {idle_descriptors} at rest");
        }
        (now <= idle_descriptors + 20).then_some(())
    })
    .await;
    // One whose request broke off at the kill lives as long as it was asked for.
    eventually("only the worker's sandbox is left", Duration::from_secs(120), async || {
        let (_, left) = red.get("/sandboxes").await;
        if left != json!([]) {
            eprintln!("{provider}: {left}");
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        (left == json!([])).then_some(())
    })
    .await;
    work(&blue, &sandbox).await;
}

crate::in_both!(others_work_on);
