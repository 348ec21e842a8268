//! What is recorded is what happened, and answers are right while things change.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use support::api::Api;
use support::eventually;
use support::serve::Serve;
use support::split::Split;

/// How the server marks each answer that is its own fault.
const BUG: &str = "internal error answered: this is a bug";

/// All events of a sandbox so far.
async fn events(api: &Api, sandbox: &str) -> Vec<Value> {
    let path = format!("/events?after=0&follow=false&format=ndjson&sandbox={sandbox}");
    let text = api.http.get(api.url(&path)).send().await.unwrap().text().await.unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of_type<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == name).collect()
}

/// Asks for everything that there is to ask of a sandbox, until it is told to stop; counts the statuses by request.
async fn hammer(
    api: Api,
    sandbox: String,
    exec: String,
    stop: Arc<AtomicBool>,
) -> BTreeMap<String, Vec<u16>> {
    let mut seen: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    let gets = [
        format!("/sandboxes/{sandbox}/stats"),
        format!("/sandboxes/{sandbox}/files?path=/etc/hostname"),
        format!("/sandboxes/{sandbox}/files/list?path=/"),
        format!("/sandboxes/{sandbox}/files/stat?path=/etc"),
        format!("/sandboxes/{sandbox}/files/glob?pattern=/etc/*"),
        format!("/sandboxes/{sandbox}"),
        format!("/execs/{exec}"),
    ];
    let posts = [
        (format!("/sandboxes/{sandbox}/exec"), json!({"command": "true"})),
        (format!("/sandboxes/{sandbox}/exec"), json!({"command": "sleep 0.05", "detach": true})),
        (format!("/sandboxes/{sandbox}/files"), json!({"path": "/workspace/a", "content": "x"})),
        (format!("/sandboxes/{sandbox}/extend"), json!({"ttl": "5m"})),
        (format!("/execs/{exec}/signal"), json!({"signal": "CONT"})),
        (format!("/execs/{exec}/resize"), json!({"rows": 5, "cols": 5})),
        (format!("/execs/{exec}/stdin"), json!({})),
    ];
    while !stop.load(Ordering::Relaxed) {
        for path in &gets {
            let answer = api.http.get(api.url(path)).send().await.unwrap();
            seen.entry(format!("GET {path}")).or_default().push(answer.status().as_u16());
        }
        for (path, body) in &posts {
            let answer = api.http.post(api.url(path)).json(body).send().await.unwrap();
            seen.entry(format!("POST {path}")).or_default().push(answer.status().as_u16());
        }
    }
    seen
}

async fn destroyed_under_requests(provider: &str, image: &str) {
    // More than a thousand requests a second come from one tenant here.
    let unlimited = [("STACYVM_LIMITS_TENANT_REQUESTS_PER_MINUTE", "0")];
    let serve = Serve::with(provider, &unlimited).await;
    for round in 0..6_u64 {
        let sandbox = serve.api.spawn(json!({"image": image, "ttl": "5m"})).await;
        let body = json!({"command": "cat", "stdin": true, "tty": {"rows": 3, "cols": 3}, "detach": true});
        let (status, started) = serve.api.post(&format!("/sandboxes/{sandbox}/exec"), body).await;
        assert_eq!(status, 202, "{started}");
        let exec = started["exec_id"].as_str().unwrap().to_owned();
        let stop = Arc::new(AtomicBool::new(false));
        let clients: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn(hammer(serve.api.clone(), sandbox.clone(), exec.clone(), Arc::clone(&stop)))
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(150 + 40 * round)).await;
        assert!([200, 202].contains(&serve.api.destroy(&sandbox).await));
        tokio::time::sleep(Duration::from_millis(300)).await;
        stop.store(true, Ordering::Relaxed);
        for client in clients {
            for (request, statuses) in client.await.unwrap() {
                for status in statuses {
                    // 400: a resize of what has no terminal. 410 and 429 are not to be expected, and 5xx never.
                    assert!([200, 202, 400, 404, 409].contains(&status), "{request}: {status}");
                }
            }
        }
    }
    let log = serve.process.log_text();
    assert!(!log.contains(BUG), "{}", log.lines().filter(|line| line.contains(BUG)).collect::<String>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_of_a_sandbox_that_is_being_destroyed_is_no_error_of_the_server() {
    destroyed_under_requests("docker", "alpine:latest").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_of_one_without_an_engine() {
    destroyed_under_requests("bubblewrap", "alpine:latest").await;
}

#[tokio::test]
async fn a_destroy_that_was_asked_for_is_told_as_such_whenever_the_executor_is_killed() {
    let mut split = Split::start().await;
    let mut kinds = Vec::new();
    for delay_ms in [0, 4, 12, 25, 60] {
        let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
        let started = json!({"command": "sleep 600", "detach": true});
        split.api.post(&format!("/sandboxes/{sandbox}/exec"), started).await;
        let (api, id) = (split.api.clone(), sandbox.clone());
        let destroy = tokio::spawn(async move { api.destroy(&id).await });
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        split.restart_executor();
        let all = eventually("it is destroyed", Duration::from_secs(60), async || {
            let all = events(&split.api, &sandbox).await;
            (!of_type(&all, "sandbox.destroyed").is_empty()).then_some(all)
        })
        .await;
        assert!([200, 202].contains(&destroy.await.unwrap()));
        let ends = of_type(&all, "sandbox.destroyed");
        assert_eq!(
            (ends.len(), &ends[0]["data"]["reason"]),
            (1, &json!("user")),
            "after {delay_ms} ms: {all:#?}"
        );
        assert!(ends[0]["actor"].as_str().unwrap().starts_with("client:"), "{}", ends[0]);
        assert_eq!(of_type(&all, "sandbox.running").len(), 1, "{all:#?}");
        kinds.push(all.len());
    }
    assert_eq!(kinds.len(), 5);
}

#[tokio::test]
async fn a_sandbox_begins_to_run_once_though_its_maker_is_killed_over_it() {
    let mut split = Split::start().await;
    for delay_ms in [20, 60, 110, 170] {
        let key = format!("spawn-{delay_ms}");
        let (api, body) = (split.api.clone(), json!({"image": "alpine:latest", "ttl": "5m"}));
        let spawn = tokio::spawn(async move {
            let request = api.http.post(api.url("/sandboxes")).header("Idempotency-Key", key).json(&body);
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        });
        tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        split.restart_executor();
        let (status, sandbox) = tokio::time::timeout(Duration::from_secs(90), spawn).await.unwrap().unwrap();
        assert_eq!((status, &sandbox["state"]), (201, &json!("running")), "{sandbox}");
        let id = sandbox["id"].as_str().unwrap();
        assert_eq!(split.api.exec(id, "echo $((6*7))").await["stdout"], "42\n");
        assert_eq!(split.api.destroy(id).await, 200);
        let all = events(&split.api, id).await;
        let types: Vec<&str> = all.iter().map(|event| event["type"].as_str().unwrap()).collect();
        assert_eq!(of_type(&all, "sandbox.running").len(), 1, "after {delay_ms} ms: {types:?}");
    }
}

#[tokio::test]
async fn a_killed_exec_is_told_as_it_ended() {
    let serve = Serve::start().await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let detached = async |command: &str| {
        let body = json!({"command": command, "detach": true});
        let (_, started) = serve.api.post(&format!("/sandboxes/{sandbox}/exec"), body).await;
        let exec = started["exec_id"].as_str().unwrap().to_owned();
        eventually("it has printed", Duration::from_secs(30), async || {
            let (_, state) = serve.api.get(&format!("/execs/{exec}")).await;
            (state["stdout_bytes"].as_u64() > Some(0)).then_some(())
        })
        .await;
        exec
    };
    let kill = async |exec: &str| {
        let request = serve.api.http.delete(serve.api.url(&format!("/execs/{exec}")));
        let answer = request.header("X-User-ID", "ada").send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()
    };
    let told = kill(&detached("trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done").await).await;
    assert_eq!((&told["state"], &told["exit_code"], told.get("signal")), (&json!("exited"), &json!(9), None));
    let asked = json!({"cause": "request", "by": "client:/ada", "signal": 15});
    assert_eq!(told["asked"], asked);
    let told = kill(&detached("echo up; exec sleep 600").await).await;
    assert_eq!((&told["state"], &told["exit_code"]), (&json!("killed"), &json!(143)));
    assert_eq!((&told["signal"], &told["asked"]), (&json!(15), &asked));

    let exec = detached("echo up; exec sleep 600").await;
    assert_eq!(serve.api.destroy(&sandbox).await, 200);
    let (_, told) = serve.api.get(&format!("/execs/{exec}")).await;
    assert_eq!((&told["state"], &told["exit_code"]), (&json!("killed"), &json!(137)), "{told}");
    assert_eq!(told["asked"]["cause"], "sandbox", "{told}");

    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let url = serve.api.url(&format!("/sandboxes/{sandbox}/exec"));
    let late = json!({"command": "sleep 600", "timeout": "300ms"});
    let answer = serve.api.http.post(url).json(&late).send().await.unwrap();
    assert_eq!(answer.status(), 408);
    let exec = answer.headers()["x-exec-id"].to_str().unwrap().to_owned();
    let (_, told) = serve.api.get(&format!("/execs/{exec}")).await;
    let ended = (&told["state"], &told["exit_code"], &told["signal"], told.get("asked"));
    assert_eq!(ended, (&json!("timed_out"), &json!(124), &json!(9), None));
}

#[tokio::test]
async fn a_full_host_says_so_and_what_waits_for_it_waits_no_longer_than_it_may() {
    let yaml = "node:\n  capacity: 1\ndefaults:\n  max_queue_wait: 2s\n";
    let serve = Serve::with_config("docker", &[], yaml).await;
    let admission = async |queueable: bool, allowed: bool| {
        eventually("admission says so", Duration::from_secs(20), async || {
            let (_, told) = serve.api.post("/sandboxes/admission", json!({})).await;
            (told["allowed"] == allowed && told["queueable"] == queueable).then_some(told)
        })
        .await
    };
    admission(false, true).await;
    let first = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "30s"})).await;
    // At once: the sandbox runs, so the place is taken.
    let (_, told) = serve.api.post("/sandboxes/admission", json!({})).await;
    let reason = (&told["allowed"], &told["queueable"], &told["reason"]);
    assert_eq!(reason, (&json!(false), &json!(true), &json!("worker_unavailable")));

    let (status, told) = serve.api.post("/sandboxes", json!({"image": "alpine:latest", "ttl": "30s"})).await;
    assert_eq!((status, &told["code"]), (429, &json!("RESOURCE_LIMIT")), "{told}");

    // One that is let in while it may still wait has its whole time to live.
    let (api, body) = (serve.api.clone(), json!({"image": "alpine:latest", "ttl": "30s"}));
    let waiting = tokio::spawn(async move { api.post("/sandboxes", body).await });
    tokio::time::sleep(Duration::from_millis(1000)).await;
    assert_eq!(serve.api.destroy(&first).await, 200);
    let (status, second) = waiting.await.unwrap();
    assert_eq!(status, 201, "{second}");
    let all = events(&serve.api, second["id"].as_str().unwrap()).await;
    let at = |event: &Value| chrono::DateTime::parse_from_rfc3339(event["time"].as_str().unwrap()).unwrap();
    let running = of_type(&all, "sandbox.running")[0];
    let expires_at = chrono::DateTime::parse_from_rfc3339(second["expires_at"].as_str().unwrap()).unwrap();
    let lives = expires_at - at(running);
    assert!(lives > chrono::TimeDelta::seconds(28) && lives < chrono::TimeDelta::seconds(32), "{lives}");
    assert!(at(running) - at(of_type(&all, "sandbox.requested")[0]) > chrono::TimeDelta::milliseconds(900));
    assert_eq!(running["data"]["expires_at"], second["expires_at"]);
    assert_eq!(serve.api.destroy(second["id"].as_str().unwrap()).await, 200);
    admission(false, true).await;
}
