//! A disk that fills, and has room again: refused at once meanwhile, and all is well afterwards without a hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::eventually;
use support::nats::Nats;
use support::process::{SIGCONT, SIGSTOP, kill};
use support::quota::Quota;
use support::serve::{Serve, running_containers};
use support::tmpfs::Tmpfs;

/// A refusal that takes longer was waited for. The first one takes a second or two: somebody has to find out.
const AT_ONCE: Duration = Duration::from_secs(8);
/// What is promised is ten seconds; this machine may be busy.
const BACK: Duration = Duration::from_secs(20);

struct Answer {
    status: u16,
    body: Value,
}

/// An answer that must not take long.
async fn at_once(request: reqwest::RequestBuilder) -> Answer {
    let began = Instant::now();
    let answer = request.timeout(Duration::from_secs(60)).send().await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.json().await.unwrap_or(Value::Null);
    assert!(began.elapsed() < AT_ONCE, "{status} {body} took {:?}", began.elapsed());
    Answer { status, body }
}

impl Serve {
    async fn get_at_once(&self, path: &str) -> Answer {
        at_once(self.api.http.get(self.api.url(path))).await
    }

    async fn post_at_once(&self, path: &str, body: Value) -> Answer {
        at_once(self.api.http.post(self.api.url(path)).json(&body)).await
    }

    async fn delete_at_once(&self, path: &str) -> Answer {
        at_once(self.api.http.delete(self.api.url(path))).await
    }

    /// Waits until `/ready` says no for this reason.
    async fn wait_unready(&self, reasons: &[&str]) {
        eventually("it says that it is not ready, and why", Duration::from_secs(15), async || {
            let answer = self.get_at_once("/ready").await;
            let named = answer.body["reasons"].as_array()?.iter();
            let named: Vec<&str> = named.filter_map(|reason| reason["code"].as_str()).collect();
            (answer.status == 503 && reasons.iter().all(|reason| named.contains(reason))).then_some(())
        })
        .await;
    }

    /// All works again, soon and by itself.
    async fn wait_recovered(&self, sandbox: &str) {
        let began = Instant::now();
        // A node looks at its disks every other second.
        eventually("it and its providers are ready again", BACK, async || {
            let (status, answer) = self.api.get("/ready").await;
            let mut providers = answer["providers"].as_array()?.iter();
            (status == 200 && providers.all(|provider| provider["healthy"] == true)).then_some(())
        })
        .await;
        let made = self.api.spawn(json!({"image": "alpine:latest"})).await;
        for sandbox in [sandbox, &made] {
            assert_eq!(self.api.exec(sandbox, "echo back").await["stdout"], "back\n");
        }
        eprintln!("all works again {:?} after there was room", began.elapsed());
    }
}

#[tokio::test]
async fn a_full_data_directory_is_left_behind_when_there_is_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let logs = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(dir.path(), 96);
    let log = logs.path().join("serve.log");
    let serve = Serve::on(dir, log, "docker", &[("STACYVM_DISK_MIN_FREE", "24m")], "").await;
    let spare = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let kept = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let short = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "12s"})).await;
    let (status, _) =
        serve.api.post(&format!("/sandboxes/{kept}/files"), json!({"path": "/tmp/a", "content": "a"})).await;
    assert!(status < 300, "{status}");
    let body = json!({"command": "sleep 5; echo over", "detach": true});
    let (status, detached) = serve.api.post(&format!("/sandboxes/{kept}/exec"), body).await;
    assert!(status < 300, "{status} {detached}");
    let exec = detached["exec_id"].as_str().unwrap().to_owned();

    // Below the floor: no new work, but what makes room.
    disk.fill(16 << 20);
    for (path, body) in [
        ("/sandboxes".to_owned(), json!({"image": "alpine:latest"})),
        (format!("/sandboxes/{kept}/exec"), json!({"command": "true"})),
    ] {
        let answer = serve.post_at_once(&path, body).await;
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.body["message"].as_str().unwrap().starts_with("disk_low: "), "{}", answer.body);
    }
    serve.wait_unready(&["disk_low"]).await;
    let admission = serve.post_at_once("/sandboxes/admission", json!({})).await;
    assert_eq!((&admission.body["allowed"], &admission.body["reason"]), (&json!(false), &json!("disk_low")));
    assert_eq!(serve.get_at_once(&format!("/sandboxes/{kept}")).await.status, 200);
    assert_eq!(serve.delete_at_once(&format!("/sandboxes/{spare}")).await.status, 200);

    // Full to the last byte.
    disk.fill(0);
    eventually("somebody notices that the disk is full", Duration::from_secs(40), async || {
        // What has room in the last pages still goes.
        disk.fill(0);
        for (path, body) in [
            ("/sandboxes".to_owned(), json!({"image": "alpine:latest"})),
            (format!("/sandboxes/{kept}/exec"), json!({"command": "true"})),
        ] {
            assert_eq!(serve.post_at_once(&path, body).await.status, 503);
        }
        assert_eq!(serve.get_at_once("/sandboxes").await.status, 200);
        assert_eq!(serve.get_at_once(&format!("/sandboxes/{kept}")).await.status, 200);
        let read = serve.get_at_once(&format!("/sandboxes/{kept}/files?path=/tmp/a")).await.status;
        assert!([200, 503].contains(&read), "{read}");
        (read == 503).then_some(())
    })
    .await;
    serve.wait_unready(&["disk_low"]).await;
    eventually("the short one is past its deadline", Duration::from_secs(60), async || {
        (!running_containers(&serve.installation()).contains(&short)).then_some(())
    })
    .await;

    disk.empty();
    serve.wait_recovered(&kept).await;
    eventually("the one past its deadline is gone", BACK, async || {
        (serve.api.get(&format!("/sandboxes/{short}")).await.0 == 404).then_some(())
    })
    .await;
    eventually("the exec has its end", BACK, async || {
        let (_, exec) = serve.api.get(&format!("/execs/{exec}")).await;
        (exec["exit_code"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_disk_that_sandboxes_write_on_fills_and_has_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let logs = tempfile::tempdir().unwrap();
    // Not that of the record: it has room all the time.
    let disk = Tmpfs::mount(&dir.path().join("bubblewrap"), 512);
    let log = logs.path().join("serve.log");
    let serve = Serve::on(dir, log, "bubblewrap", &[("STACYVM_DISK_MIN_FREE", "24m")], "").await;
    let kept = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    disk.fill(8 << 20);
    eventually("it is seen that sandboxes have no room", Duration::from_secs(30), async || {
        let ready = serve.get_at_once("/ready").await;
        let provider = ready.body["providers"].as_array()?.iter().find(|one| one["name"] == "bubblewrap")?;
        (provider["healthy"] == false && provider["reason"] == "disk_low").then_some(())
    })
    .await;
    let refused = serve.post_at_once("/sandboxes", json!({"image": "alpine:latest"})).await;
    assert_eq!(refused.status, 503, "{}", refused.body);
    assert!(refused.body["message"].as_str().unwrap().starts_with("disk_low: "), "{}", refused.body);
    let admission = serve.post_at_once("/sandboxes/admission", json!({})).await;
    assert_eq!((&admission.body["allowed"], &admission.body["reason"]), (&json!(false), &json!("disk_low")));
    assert_eq!(serve.api.exec(&kept, "echo works").await["stdout"], "works\n");
    disk.empty();
    eventually("there is room again", BACK, async || {
        let (status, answer) = serve.api.post("/sandboxes", json!({"image": "alpine:latest"})).await;
        assert!(status == 201 || answer["message"].to_string().contains("disk_low"), "{status} {answer}");
        (status == 201).then_some(())
    })
    .await;
    assert_eq!(serve.delete_at_once(&format!("/sandboxes/{kept}")).await.status, 200);
}

#[tokio::test]
async fn the_disk_of_nats_alone_fills_and_has_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(&dir.path().join("nats"), 48);
    let log = dir.path().join("serve.log");
    // As with a quota: nobody can see beforehand that there is no room.
    let serve = Serve::on(dir, log, "docker", &[("STACYVM_DISK_MIN_FREE", "0")], "").await;
    let kept = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    disk.fill(0);
    let mut command = Vec::new();
    for _ in 0..12 {
        let answer =
            serve.post_at_once(&format!("/sandboxes/{kept}/exec"), json!({"command": "echo ok"})).await;
        // While the last pages have room.
        assert!(answer.status == 200 || answer.status == 503, "{} {}", answer.status, answer.body);
        command.push(answer.status);
        disk.fill(0);
    }
    serve.wait_unready(&["transport_full"]).await;
    let refused = serve.post_at_once(&format!("/sandboxes/{kept}/exec"), json!({"command": "true"})).await;
    assert_eq!((refused.status, &refused.body["code"]), (503, &json!("AUDIT_UNAVAILABLE")), "{command:?}");
    assert_eq!(serve.delete_at_once(&format!("/sandboxes/{kept}")).await.status, 503);
    assert_eq!(serve.get_at_once("/sandboxes").await.status, 200);
    let admission = serve.post_at_once("/sandboxes/admission", json!({})).await;
    assert_eq!(admission.body["reason"], "transport_full", "{}", admission.body);
    disk.empty();
    serve.wait_recovered(&kept).await;
}

#[tokio::test]
async fn a_disk_of_nats_that_was_read_only_for_a_while_is_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(&dir.path().join("nats"), 48);
    let log = dir.path().join("serve.log");
    let serve = Serve::on(dir, log, "docker", &[("STACYVM_DISK_MIN_FREE", "8m")], "").await;
    let kept = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    // A kernel that finds an error does this to open files too; by hand it goes only while nobody writes.
    serve.process.signal(SIGSTOP);
    kill(serve.nats_pid());
    disk.remount_read_only();
    serve.process.signal(SIGCONT);
    serve.wait_unready(&["transport_unreachable"]).await;
    assert_eq!(serve.get_at_once("/sandboxes").await.status, 200);
    disk.remount_writable();
    serve.wait_recovered(&kept).await;
}

#[tokio::test]
async fn a_nats_of_ones_own_with_a_full_disk_is_named_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Tmpfs::mount(&dir.path().join("store"), 48);
    let mut nats = Nats::start(dir.path());
    let url = nats.url();
    let log = dir.path().join("serve.log");
    let serve = Serve::on(dir, log, "docker", &[("STACYVM_NATS_URL", &url)], "nats: {max_events: 16m}").await;
    let kept = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    disk.fill(0);
    serve.wait_unready(&["transport_full"]).await;
    let said = eventually("the log says what to do", Duration::from_secs(5), async || {
        let log = serve.process.log_text();
        log.lines().find(|line| line.contains("transport_full")).map(str::to_owned)
    })
    .await;
    assert!(
        said.contains("Make room in the store_dir") && said.contains("restart that nats-server"),
        "{said}"
    );
    disk.empty();
    // It stays as it is, and so does the answer, until somebody does that.
    tokio::time::sleep(Duration::from_secs(1)).await;
    serve.wait_unready(&["transport_full"]).await;
    nats.restart();
    serve.wait_recovered(&kept).await;
}

#[tokio::test]
async fn a_quota_that_is_reached_and_raised_is_a_disk_that_fills_and_has_room_again() {
    let dir = tempfile::tempdir().unwrap();
    let image = tempfile::tempdir().unwrap();
    let quota = Quota::mount(&dir.path().join("nats"), &image.path().join("disk"), 64);
    let log = dir.path().join("serve.log");
    let serve = Serve::on(dir, log, "docker", &[("STACYVM_DISK_MIN_FREE", "0")], "").await;
    let kept = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    eventually("somebody notices", Duration::from_secs(40), async || {
        // What has room in the last pages still goes.
        quota.fill();
        let answer =
            serve.post_at_once(&format!("/sandboxes/{kept}/exec"), json!({"command": "echo ok"})).await;
        assert!([200, 503].contains(&answer.status), "{} {}", answer.status, answer.body);
        (answer.status == 503).then_some(())
    })
    .await;
    serve.wait_unready(&["transport_full"]).await;
    assert_eq!(serve.get_at_once("/sandboxes").await.status, 200);
    quota.empty();
    serve.wait_recovered(&kept).await;
}

#[tokio::test]
async fn the_room_for_output_alone_is_used_up_and_there_is_room_again() {
    for provider in ["docker", "bubblewrap"] {
        let serve = Serve::with_provider(provider).await;
        let made = async || serve.api.spawn(json!({"image": "alpine:latest"})).await;
        let (full, other) = (made().await, made().await);
        let filled = serve.api.exec(&full, "cat /dev/zero >/.stacyvm/run/fill").await;
        assert!(filled["stderr"].as_str().unwrap().contains("No space left"), "{filled}");
        // Nothing is lost, here or elsewhere: output waits in memory, and then the process waits.
        let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
        for sandbox in [&full, &other] {
            assert!(serve.api.exec(sandbox, "seq 200000").await["stdout"] == expected.as_str());
        }
        assert!(serve.api.ready().await);
        serve.api.exec(&full, "rm /.stacyvm/run/fill").await;
        assert!(serve.api.exec(&full, "seq 200000").await["stdout"] == expected.as_str());
    }
}
