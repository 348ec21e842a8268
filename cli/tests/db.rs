//! Looking after the database of a real server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use support::process::stacyvm;
use support::serve::Serve;

fn db(serve: &Serve, words: &[&str]) -> Output {
    stacyvm()
        .args(["--output", "json", "db"])
        .args(words)
        .arg("--data-dir")
        .arg(serve.dir.path())
        .output()
        .unwrap()
}

#[track_caller]
fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains(why), "{errors}");
}

async fn stdout_of(serve: &Serve, exec: &str) -> (u16, String) {
    let answer = reqwest::get(serve.api.url(&format!("/execs/{exec}/output"))).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn run(serve: &Serve, sandbox: &str, command: &str) -> String {
    let result = serve.api.exec(sandbox, command).await;
    assert_eq!(result["exit_code"], 0, "{result}");
    result["exec_id"].as_str().unwrap().to_owned()
}

/// Whether a text is anywhere in the files of the database.
fn is_on_disk(dir: &Path, text: &str) -> bool {
    ["events.db", "events.db-wal"].iter().any(|name| {
        let bytes = std::fs::read(dir.join(name)).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

/// What verification says of a stopped server's data, which must be good and signed.
#[track_caller]
fn verified(serve: &Serve) -> Value {
    let mut command = support::process::stacyvm();
    command.args(["audit", "verify", "--output", "json", "--data-dir"]).arg(serve.dir.path());
    done(&command.output().unwrap())
}

/// Another key on an old log: what was signed before can still be checked, and the log says that it changed.
#[tokio::test]
async fn a_new_audit_key_is_stated_and_the_log_still_verifies() {
    let mut serve = Serve::with_provider("bubblewrap").await;
    // A stop does not wait for ever until its checkpoint is recorded, and of a log that nobody signed no key changes.
    support::eventually("the log is signed", std::time::Duration::from_secs(30), async || {
        let (_, page) = serve.api.get("/audit/checkpoints").await;
        page["checkpoints"].as_array().is_some_and(|all| !all.is_empty()).then_some(())
    })
    .await;
    serve.process.terminate();
    let key = serve.dir.path().join("audit.key");
    for previous in [true, false] {
        if previous {
            std::fs::rename(&key, serve.dir.path().join("audit.key.previous")).unwrap();
        } else {
            std::fs::remove_file(&key).unwrap();
        }
        serve.kill_and_restart().await;
        support::eventually("the log says so", std::time::Duration::from_secs(30), async || {
            let (_, page) = serve.api.get("/audit?type=audit.key_changed").await;
            let events = page["events"].as_array()?;
            (events.len() == 1 + usize::from(!previous)).then_some(())
        })
        .await;
        serve.process.terminate();
        let report = verified(&serve);
        let unvouched = report["keys_changed_at"].as_array().map_or(0, Vec::len);
        assert_eq!(unvouched, usize::from(!previous), "{report}");
    }
    assert!(serve.process.log_text().contains("another key signs this log"));
    // Without any key it is whole, and that is all.
    std::fs::remove_file(serve.dir.path().join("audit.pub")).unwrap();
    let mut command = support::process::stacyvm();
    command.args(["audit", "verify", "--data-dir"]).arg(serve.dir.path());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("UNSIGNED"));
}

#[tokio::test]
async fn a_backup_is_made_while_the_server_runs_and_restored_while_it_does_not() {
    let mut serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "provider": "bubblewrap"})).await;
    let before = run(&serve, &sandbox, "seq 1 5000").await;
    let whole = stdout_of(&serve, &before).await.1;
    let copy = serve.dir.path().join("copy.db");
    let copy = copy.to_str().unwrap();
    let backup = done(&db(&serve, &["backup", copy]));
    assert!(backup["head"].as_u64().unwrap() >= 6 && backup["head"] == backup["events"], "{backup}");
    refused(&db(&serve, &["backup", copy]), "exists");
    let after = run(&serve, &sandbox, "echo lost").await;

    let stats = done(&db(&serve, &["stats"]));
    assert!(
        stats["stored_body_bytes"].as_u64().unwrap() * 2 < stats["body_bytes"].as_u64().unwrap(),
        "{stats}"
    );
    assert!(stats["bytes_per_body_byte"].as_f64().unwrap() > 0.0, "{stats}");
    for words in [&["compact"][..], &["restore", copy], &["restore", copy, "--force"]] {
        refused(&db(&serve, words), "another stacyvm uses the data directory");
    }

    serve.process.terminate();
    done(&db(&serve, &["compact"]));
    refused(&db(&serve, &["restore", copy]), "--force");
    let other = serve.dir.path().join("serve.log");
    refused(&db(&serve, &["restore", other.to_str().unwrap(), "--force"]), "damaged");
    let restored = done(&db(&serve, &["restore", copy, "--force"]));
    assert_eq!(restored["head"], backup["head"]);
    // What is lost is said at once, and the rest verifies.
    let lost = verified(&serve)["restored"][0].clone();
    assert_eq!(lost["up_to"], backup["head"], "{lost}");
    assert!(lost["lost_to"].as_u64().unwrap() > backup["head"].as_u64().unwrap(), "{lost}");
    serve.kill_and_restart().await;

    // What was before the copy is there, what came after it never happened, and the log goes on.
    assert_eq!(stdout_of(&serve, &before).await, (200, whole));
    assert_eq!(serve.api.get(&format!("/execs/{after}")).await.0, 404);
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "provider": "bubblewrap"})).await;
    let next = run(&serve, &sandbox, "echo on").await;
    assert_eq!(stdout_of(&serve, &next).await, (200, "on\n".to_owned()));
    serve.process.terminate();
    let report = verified(&serve);
    assert_eq!(report["restored"], json!([lost]), "{report}");
    // Also by the log alone.
    std::fs::remove_file(serve.dir.path().join("checkpoints.ndjson")).unwrap();
    assert_eq!(verified(&serve)["restored"], json!([lost]));
    let again = serve.dir.path().join("again.db");
    let checked = done(&db(&serve, &["backup", again.to_str().unwrap()]));
    assert_eq!(checked["head"], checked["events"], "positions without holes");
}

/// As with a NATS that is not ours: it has forgotten what the older database does not have.
#[tokio::test]
async fn a_database_that_is_older_than_its_nats_is_recorded_into() {
    let mut serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "provider": "bubblewrap"})).await;
    let before = run(&serve, &sandbox, "echo before").await;
    let copy = serve.dir.path().join("copy.db");
    done(&db(&serve, &["backup", copy.to_str().unwrap()]));
    for _ in 0..5 {
        run(&serve, &sandbox, "echo lost").await;
    }
    // Until what is recorded has been purged.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    serve.process.terminate();
    for name in ["events.db", "events.db-wal", "events.db-shm"] {
        let _ = std::fs::remove_file(serve.dir.path().join(name));
    }
    std::fs::rename(&copy, serve.dir.path().join("events.db")).unwrap();
    serve.kill_and_restart().await;
    assert!(serve.process.log_text().contains("the database is older than the stream of events"));
    assert_eq!(stdout_of(&serve, &before).await, (200, "before\n".to_owned()));
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "provider": "bubblewrap"})).await;
    let next = run(&serve, &sandbox, "echo on").await;
    assert_eq!(stdout_of(&serve, &next).await, (200, "on\n".to_owned()));
}

#[tokio::test]
async fn sealed_output_is_not_in_the_files_and_an_erased_sandbox_stays_erased() {
    let mut serve = Serve::with("bubblewrap", &[("STACYVM_ENCRYPTION_ENABLED", "true")]).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "provider": "bubblewrap"})).await;
    // The command, which is no output, does not hold what it prints.
    let exec = run(&serve, &sandbox, "echo swordfish | tr a-z b-za").await;
    assert_eq!(stdout_of(&serve, &exec).await, (200, "txpsegjti\n".to_owned()));
    assert!(!is_on_disk(serve.dir.path(), "txpsegjti"));
    serve.kill_and_restart().await;
    assert_eq!(stdout_of(&serve, &exec).await, (200, "txpsegjti\n".to_owned()));
    let (status, erased) = serve.api.post(&format!("/sandboxes/{sandbox}/erase"), json!({})).await;
    assert_eq!((status, &erased["status"]), (200, &json!("erased")), "{erased}");
    assert_eq!(stdout_of(&serve, &exec).await.0, 410);
    serve.kill_and_restart().await;
    assert_eq!(stdout_of(&serve, &exec).await.0, 410);
}

#[test]
fn postgres_has_its_own_tools() {
    for (words, tool) in [
        (&["backup", "/nowhere/copy.db"][..], "pg_dump"),
        (&["restore", "/nowhere/copy.db"], "pg_restore"),
        (&["compact"], "VACUUM FULL"),
    ] {
        let output = stacyvm()
            .arg("db")
            .args(words)
            .args(["--database", "postgres://user:secret@127.0.0.1:1/x"])
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(tool) && !errors.contains("secret"), "{errors}");
    }
}
