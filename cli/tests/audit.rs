//! The log as evidence: checkpoints of a real server, exports, what `stacyvm audit verify` says of copies that somebody
//! changed, and requests that are refused because they could not be recorded.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};
use support::eventually;
use support::process::stacyvm;
use support::serve::Serve;
use support::split::Split;

fn audit(server: Option<&Serve>, words: &[&str]) -> Output {
    let mut command = stacyvm();
    if let Some(serve) = server {
        command.env("STACYVM_URL", serve.api.base.trim_end_matches("/api/v1"));
    }
    command.args(["audit"]).args(words).output().unwrap()
}

#[track_caller]
fn report(output: &Output, code: i32) -> Value {
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{out}\n{errors}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}\n{errors}"))
}

/// A copy of a stopped server's data, to be changed.
fn copy(of: &Path, to: &Path, name: &str) -> PathBuf {
    let dir = to.join(name);
    std::fs::create_dir(&dir).unwrap();
    for file in ["events.db", "audit.pub", "checkpoints.ndjson"] {
        std::fs::copy(of.join(file), dir.join(file)).unwrap();
    }
    dir
}

/// Runs statements on the database of a copy, of which the triggers are gone.
fn tamper(dir: &Path, code: &str) {
    let script = format!(
        "
import sqlite3, hashlib, struct
db = sqlite3.connect({:?})
for (name,) in db.execute(\"SELECT name FROM sqlite_master WHERE type = 'trigger'\").fetchall():
    db.execute('DROP TRIGGER ' + name)
def rebuild():
    links = {{}}
    for position, tenant, header, body_hash in db.execute(
            'SELECT position, tenant, header, body_hash FROM events ORDER BY position').fetchall():
        text = links.get(tenant, bytes(32)) + struct.pack('>QI', position, len(header)) + header + (body_hash or b'')
        links[tenant] = hashlib.sha256(text).digest()
        db.execute('UPDATE events SET hash = ? WHERE position = ?', (links[tenant], position))
        db.execute('UPDATE chain_heads SET hash = ?, position = ? WHERE tenant = ?', (links[tenant], position, tenant))
before = db.total_changes
{code}
assert db.total_changes > before
db.commit()
",
        dir.join("events.db").display().to_string()
    );
    let output = Command::new("python3").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn finding(dir: &Path) -> (u64, String, String) {
    let output = audit(None, &["verify", "--output", "json", "--data-dir", dir.to_str().unwrap()]);
    let report = report(&output, 1);
    assert_eq!(report["ok"], false);
    let finding = &report["finding"];
    let text = |name: &str| finding[name].as_str().unwrap().to_owned();
    (finding["position"].as_u64().unwrap(), text("fault"), text("explanation"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_verifies_and_every_change_of_a_copy_is_named() {
    let mut serve = Serve::with("docker", &[("STACYVM_AUDIT_CHECKPOINT_INTERVAL", "1s")]).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    for number in 0..3 {
        serve.api.exec(&sandbox, &format!("echo number {number}")).await;
        tokio::time::sleep(Duration::from_millis(1_300)).await;
    }
    serve.api.destroy(&sandbox).await;
    eventually("a checkpoint", Duration::from_secs(20), async || {
        let (_, page) = serve.api.get("/audit/checkpoints").await;
        (page["checkpoints"].as_array().unwrap().len() >= 2).then_some(())
    })
    .await;

    // The server itself, and what it gives away.
    let live = report(&audit(Some(&serve), &["verify", "--output", "json"]), 0);
    assert_eq!(live["ok"], true, "{live}");
    assert!(live["checkpoints"]["signatures_checked"].as_u64().unwrap() >= 4, "{live}");
    assert!(live["checkpoints"]["in_file"].as_u64().unwrap() >= 2, "{live}");
    let scratch = tempfile::tempdir().unwrap();
    let export = scratch.path().join("export.ndjson");
    let public_key = serve.dir.path().join("audit.pub");
    for tenant in [None, Some("default")] {
        let mut words = vec!["export", "--file", export.to_str().unwrap()];
        words.extend(tenant.iter().flat_map(|tenant| ["--tenant", tenant]));
        assert!(audit(Some(&serve), &words).status.success());
        let words = ["verify", export.to_str().unwrap(), "--public-key", public_key.to_str().unwrap()];
        let exported = report(&audit(None, &[&words[..], &["--output", "json"]].concat()), 0);
        assert!(exported["checkpoints"]["signatures_checked"].as_u64().unwrap() >= 2, "{exported}");
        assert!(exported["bodies"].as_u64().unwrap() >= 3, "{exported}");
        // A line that is gone, and a file that ends too early.
        let text = std::fs::read_to_string(&export).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let broken = scratch.path().join("broken.ndjson");
        for kept in [[&lines[..3], &lines[4..]].concat(), lines[..lines.len() - 1].to_vec()] {
            std::fs::write(&broken, kept.join("\n") + "\n").unwrap();
            let output = audit(None, &["verify", broken.to_str().unwrap(), "--output", "json"]);
            assert!(report(&output, 1)["finding"]["position"].as_u64().unwrap() > 0);
        }
    }

    assert!(serve.process.terminate().success());
    let whole = copy(serve.dir.path(), scratch.path(), "whole");
    let output = audit(None, &["verify", "--output", "json", "--data-dir", whole.to_str().unwrap()]);
    let whole_report = report(&output, 0);
    let end = whole_report["last"].as_u64().unwrap();
    assert_eq!(
        whole_report["refolded"],
        json!({"sandboxes": 1, "execs": 3, "templates": 0, "webhooks": 0, "begun_before": 0})
    );
    let output =
        audit(None, &["verify", "--quick", "--output", "json", "--data-dir", whole.to_str().unwrap()]);
    let quick = report(&output, 0);
    assert!(quick["refolded"].is_null(), "{quick}");
    assert!(quick["does_not_prove"].to_string().contains("read models"), "{quick}");
    // The last checkpoint was made at the stop. It is the only thing after what it speaks of, or only in the file: a stop does
    // not wait for ever until it is recorded.
    assert!(whole_report["events_after_checkpoint"].as_u64().unwrap() <= 1, "{whole_report}");

    let changed = |name: &str, code: &str| {
        let dir = copy(serve.dir.path(), scratch.path(), name);
        tamper(&dir, code);
        finding(&dir)
    };
    let (position, fault, _) = changed(
        "header",
        "db.execute(\"UPDATE events SET header = CAST(replace(CAST(header AS TEXT), char(34) || '1.0' || char(34), char(34) || '1.1' || char(34)) AS BLOB) WHERE position = 4\")",
    );
    assert_eq!((position, fault.as_str()), (4, "hash"));
    let (_, fault, _) =
        changed("body", "db.execute(\"UPDATE bodies SET body = CAST(x'00' || body AS BLOB)\")");
    assert_eq!(fault, "body");
    let (position, fault, _) = changed(
        "swapped",
        "for a, b in ((5, -1), (6, 5), (-1, 6)): db.execute('UPDATE events SET position = ? WHERE position = ?', (b, a))",
    );
    assert_eq!((position, fault.as_str()), (5, "hash"));
    let (position, fault, _) = changed("deleted", "db.execute('DELETE FROM events WHERE position = 7')");
    assert_eq!((position, fault.as_str()), (7, "missing"));
    // Whoever cuts the tail off, and knows what else to change.
    let (position, fault, explanation) = changed(
        "cut",
        &format!(
            "
db.execute('DELETE FROM events WHERE position > {cut}')
db.execute('DELETE FROM bodies WHERE position > {cut}')
db.execute('UPDATE head SET position = {cut}')
db.execute('DELETE FROM chain_heads WHERE tenant NOT IN (SELECT tenant FROM events)')
rebuild()",
            cut = end - 3
        ),
    );
    assert_eq!((position, fault.as_str()), (end - 2, "beyond"));
    assert!(explanation.contains("of the checkpoint file"), "{explanation}");
    // Everything rebuilt, so that every link is right again.
    let (_, fault, explanation) = changed(
        "rebuilt",
        "
db.execute(\"UPDATE events SET header = CAST(replace(CAST(header AS TEXT), char(34) || '1.0' || char(34), char(34) || '1.1' || char(34)) AS BLOB) WHERE position = 4\")
rebuild()",
    );
    assert_eq!(fault, "contradiction");
    assert!(explanation.contains("the checkpoint at position"), "{explanation}");
    forged_around_the_events(&changed);
}

/// What no hash covers: the columns that queries go by, and what the read models show.
#[track_caller]
fn forged_around_the_events(changed: &dyn Fn(&str, &str) -> (u64, String, String)) {
    let column = |name: &str, table: &str, set: &str| {
        (
            name.to_owned(),
            format!("db.execute(\"UPDATE {table} SET {set}\")"),
            "column",
            name.replace('_', " "),
        )
    };
    let exited = "WHERE type = 'exec.exited'";
    let first = "WHERE position = (SELECT min(position) FROM bodies)";
    let shown = |name: &str, statement: &str| {
        (name.to_owned(), format!("db.execute(\"{statement}\")"), "read_model", String::new())
    };
    let forgeries = [
        column("id", "events", "id = x'00112233445566778899aabbccddeeff' WHERE position = 3"),
        column("type", "events", &format!("type = 'exec.output' {exited}")),
        column("time", "events", &format!("time = time - 1 {exited}")),
        column("sandbox", "events", &format!("sandbox = NULL {exited}")),
        column("exec", "events", &format!("exec = (SELECT max(exec) FROM events) {exited}")),
        column("body's_exec", "bodies", &format!("exec = (SELECT max(exec) FROM bodies) {first}")),
        column("body's_stream", "bodies", &format!("stream = 2 {first}")),
        column("body's_offset", "bodies", &format!("byte_offset = 7 {first}")),
        column("body's_length", "bodies", &format!("length = length - 1 {first}")),
        shown(
            "exit_code",
            "UPDATE aggregates SET state = replace(state, '\\\"code\\\":0', '\\\"code\\\":1') WHERE kind = 'exec'",
        ),
        shown("ended", "UPDATE aggregates SET ended = 0 WHERE kind = 'exec'"),
        shown("status", "UPDATE aggregates SET status = 'failed' WHERE kind = 'exec'"),
        shown("of_another", "UPDATE aggregates SET tenant = 'blue' WHERE kind = 'exec'"),
        shown("elsewhere", "UPDATE aggregates SET parent = zeroblob(16) WHERE kind = 'exec'"),
        shown("deadline", "UPDATE aggregates SET due_at = due_at + 1 WHERE kind = 'sandbox'"),
        shown("hidden", "DELETE FROM aggregates WHERE kind = 'sandbox'"),
        shown(
            "hidden_exec",
            "DELETE FROM aggregates WHERE id = (SELECT max(id) FROM aggregates WHERE kind = 'exec')",
        ),
        shown(
            "invented",
            "INSERT INTO aggregates SELECT kind, x'ffffffffffff7fffbfffffffffffffff', tenant, owner, parent, place, status, label, ended, rank, sort_at, due_at, state FROM aggregates WHERE kind = 'exec' LIMIT 1",
        ),
        shown(
            "template",
            "INSERT INTO aggregates VALUES ('template', CAST('default/x' AS BLOB), 'default', NULL, NULL, NULL, 'saved', NULL, 0, 0, 0, NULL, '{\\\"tenant\\\":\\\"default\\\",\\\"template\\\":{\\\"name\\\":\\\"x\\\",\\\"image\\\":\\\"x\\\"}}')",
        ),
    ];
    for (name, code, wanted, says) in forgeries {
        let (_, fault, explanation) = changed(&format!("forged-{name}"), &code);
        assert_eq!(fault, wanted, "{name}: {explanation}");
        assert!(explanation.ends_with(&says), "{name}: {explanation}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_recorded_is_refused_while_reading_goes_on() {
    let split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest"})).await;
    let change =
        async || split.api.post(&format!("/sandboxes/{sandbox}/extend"), json!({"ttl": "10m"})).await;
    assert_eq!(change().await.0, 200);
    split.recorder.signal(19);
    let refused = eventually("a refusal", Duration::from_secs(40), async || {
        let (status, body) = tokio::time::timeout(Duration::from_secs(5), change()).await.ok()?;
        (status == 503 && body["code"] == "AUDIT_UNAVAILABLE").then_some(body)
    })
    .await;
    assert!(refused["message"].as_str().unwrap().contains("recorded"), "{refused}");
    assert_eq!(split.api.get(&format!("/sandboxes/{sandbox}")).await.0, 200);
    assert_eq!(split.api.get("/audit?limit=5&order=desc").await.0, 200);
    let metrics = split.api.http.get(split.api.url("/metrics/prometheus")).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let lag = metrics.lines().find_map(|line| line.strip_prefix("stacyvm_recorder_lag_seconds ")).unwrap();
    assert!(lag.parse::<f64>().unwrap() > 9.0, "{lag}");
    split.recorder.signal(18);
    eventually("a change is let in again", Duration::from_secs(20), async || {
        (change().await.0 == 200).then_some(())
    })
    .await;
}
