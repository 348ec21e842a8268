//! Secrets that are typed at a terminal, slowly, and secrets that programs write in another way than they are.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use support::serve::Serve;
use support::verbs::{text, verb};
use support::viewer::{Viewer, detach};

const SECRET: &str = "kestrel/93ab71+violet'q";
const CONFIG: &str = "
redaction:
  rules:
    - name: tokens
      pattern: 'tok_[0-9a-f]{16}'
audit:
  record_input: true
";

/// All that the record, a replay and a download show of an exec, each with its name.
async fn shown(serve: &Serve, exec: &str) -> Vec<(&'static str, String)> {
    let bytes = async |path: &str| {
        let answer = serve.api.http.get(serve.api.url(path)).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
        answer.bytes().await.unwrap().to_vec()
    };
    let record = bytes("/events?from=1&follow=false&format=ndjson&bodies=true").await;
    let mut bodies = [Vec::new(), Vec::new()];
    for line in String::from_utf8(record.clone()).unwrap().lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let kind = ["exec.output", "exec.input"].iter().position(|kind| event["type"] == *kind);
        if let (Some(kind), Some(body)) = (kind, event["body_base64"].as_str()) {
            bodies[kind].extend(base64::engine::general_purpose::STANDARD.decode(body).unwrap());
        }
    }
    let [output, input] = bodies;
    let replayed = verb(serve, &["replay", exec, "--speed", "inf"]);
    assert_eq!(replayed.status.code(), Some(0), "{}", text(&replayed.stderr));
    vec![
        ("the events", text(&record)),
        ("the output in the record", text(&output)),
        ("the input in the record", text(&input)),
        ("the download", text(&bytes(&format!("/execs/{exec}/output")).await)),
        ("the replay", text(&replayed.stdout)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_typed_key_by_key_is_not_told() {
    let serve = Serve::with_config("docker", &[], CONFIG).await;
    let spawn = json!({"image": "alpine:latest", "ttl": "10m", "secrets": {"SECRET": SECRET}});
    let sandbox = serve.api.spawn(spawn).await;
    let reads = json!({
        "command": "printf 'key? '; read -r line; [ \"$line\" = \"$SECRET\" ] && echo it is; read -r line",
        "tty": true, "detach": true
    });
    // Three at once: quick fingers, slow ones, and one who falls asleep after five keys and hangs up before the last two.
    let types = async |pause: Duration, sleeps: Duration, keys: usize| {
        let exec = detach(&serve.api, &sandbox, reads.clone()).await;
        let mut viewer = Viewer::attach(&serve.api, &exec, "").await;
        viewer.until_text("key? ").await;
        for (index, key) in SECRET.bytes().take(keys).enumerate() {
            viewer.type_in(&[key]).await;
            tokio::time::sleep(if index == 4 { sleeps } else { pause }).await;
        }
        if keys == SECRET.len() {
            viewer.type_in(b"\nbye\n").await;
            viewer.until("exit").await;
            assert!(viewer.text().contains("it is\r\n"), "the process got something else: {}", viewer.text());
        } else {
            let ended = serve.api.http.delete(serve.api.url(&format!("/execs/{exec}"))).send().await.unwrap();
            assert_eq!(ended.status().as_u16(), 200);
            viewer.until("exit").await;
        }
        viewer.rest().await;
        (exec, viewer.text())
    };
    let short = Duration::from_millis;
    let typed = futures::future::join_all([
        types(short(120), short(120), SECRET.len()),
        types(short(330), short(330), SECRET.len()),
        types(short(300), short(2600), SECRET.len() - 2),
    ])
    .await;
    for (exec, live) in typed {
        let mut all = shown(&serve, &exec).await;
        let (_, echo) = all[3].1.split_once("key? ").unwrap();
        assert!(echo.find('*').is_some_and(|clear| clear <= 3), "{echo}");
        all.push(("the live stream", live));
        for (what, told) in all {
            // The first three keys may have been shown before it could be known.
            assert!(!told.contains(&SECRET[..4]), "{what}: {told}");
            for part in SECRET.as_bytes().windows(6).map(|part| std::str::from_utf8(part).unwrap()) {
                assert!(!told.contains(part), "{part} in {what}: {told}");
            }
        }
    }
    assert_eq!(serve.api.destroy(&sandbox).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_programs_make_of_a_secret_is_not_told() {
    let serve = Serve::with_config("docker", &[], CONFIG).await;
    let spawn = json!({"image": "alpine:latest", "ttl": "10m", "secrets": {"SECRET": SECRET}});
    let sandbox = serve.api.spawn(spawn).await;
    let script = r#"printf %s "$SECRET" | base64; printf %s "u:$SECRET" | base64 -w 0; echo; printf %s "us:$SECRET" | base64 -w 0; echo
printf %s "$SECRET" | od -An -v -tx1 | tr -d ' \n'; echo
printf %s "$SECRET" | od -An -v -tx1 | tr -d ' \n' | tr a-f A-F; echo
printf %s "$SECRET" | sed 's,/,%2F,g; s,+,%2B,g; s,\x27,%27,g'; echo
printf '{"p":"%s"}' "$SECRET" | sed 's,/,\\/,g'; echo
set | grep ^SECRET= "#;
    let exec = detach(&serve.api, &sandbox, json!({"command": script})).await;
    let mut viewer = Viewer::attach(&serve.api, &exec, "").await;
    viewer.until("exit").await;
    viewer.rest().await;
    let live = viewer.text();
    assert_eq!(live.lines().count(), 8, "{live}");
    let hex: String = hex::encode(SECRET);
    let mut all = shown(&serve, &exec).await;
    all.push(("the live stream", live.clone()));
    for (what, told) in &all {
        for part in [
            "kestrel",
            "violet",
            &hex[8..20],
            &hex.to_uppercase()[8..20],
            "c3RyZW",
            "N0cmVs",
            "zdHJlb",
            "93ab71",
        ] {
            assert!(!told.contains(part), "{part} in {what}: {told}");
        }
    }
    let lines: Vec<&str> = live.lines().collect();
    assert_eq!(lines[3], "*".repeat(hex.len()));
    assert_eq!(lines[4], "*".repeat(hex.len()));
    assert_eq!(lines[6], format!("{{\"p\":\"{}\"}}", "*".repeat(SECRET.len() + 1)));
    assert!(lines[7].starts_with("SECRET='*****"), "{live}");
    assert_eq!(serve.api.destroy(&sandbox).await, 200);
}
