//! A terminal in a real browser, end to end: the page of `examples/browser-terminal` in Chromium.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use support::process::free_port;
use support::serve::Serve;
use support::viewer::{Viewer, detach};

#[tokio::test]
async fn a_page_that_is_loaded_again_answers_no_old_questions_and_types_into_the_live_shell() {
    let port = free_port();
    let yaml = format!("server:\n  allowed_origins: [\"http://127.0.0.1:{port}\"]\n");
    let serve = Serve::with_config("docker", &[], &yaml).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let shell = json!({
        "command": "bash", "args": ["--norc", "-i"], "mode": "argv", "env": {"PS1": "$ "},
        "tty": true, "rows": 24, "cols": 80
    });
    let exec = detach(&serve.api, &sandbox, shell).await;
    // What programs ask a terminal: what it is, its status, and where its cursor stands. Nobody answers.
    let mut viewer = Viewer::attach(&serve.api, &exec, "").await;
    viewer.until_text("$ ").await;
    viewer.type_in(b"printf '\\033[c\\033[>c\\033[5n\\033[6n'; echo asked=$((40+2))\n").await;
    viewer.until_text("asked=42").await;

    let modules = cache().join("browser/node_modules");
    let server = serve.api.base.split("/api").next().unwrap().to_owned();
    let tried = tokio::process::Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/browser-terminal/try.js"))
        .args([&server, &exec, &port.to_string()])
        .env("MODULES", &modules)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let tried =
        tokio::time::timeout(Duration::from_secs(240), tried).await.expect("the browser does not end");
    let tried = tried.expect("node is installed; run scripts/setup");
    let complaint = String::from_utf8_lossy(&tried.stderr);
    assert!(tried.status.success(), "{complaint}");
    let seen: Value =
        serde_json::from_slice(&tried.stdout).unwrap_or_else(|error| panic!("{error}: {complaint}"));
    // Neither the first visit nor the reload sent anything, though both were asked.
    assert_eq!(seen["visits"], json!([[], []]), "{seen}");
    // The question that was asked while it watched was answered.
    let answered = seen["live"].as_array().unwrap().iter().any(|frame| {
        let frame = frame.as_str().unwrap();
        frame.starts_with("\0\u{1b}[") && frame.ends_with('R')
    });
    assert!(answered, "{seen}");

    // The shell agrees: it was typed nothing that nobody typed.
    viewer.until("exit").await;
    viewer.rest().await;
    let text = viewer.text();
    assert!(text.contains("café at=") && !text.contains(";2c") && !text.contains("[0n"), "{text:?}");
}

/// Where scripts/setup puts what it fetches.
fn cache() -> PathBuf {
    std::env::var_os("STACYVM_CACHE").map_or_else(|| PathBuf::from("/var/cache/stacyvm"), PathBuf::from)
}
