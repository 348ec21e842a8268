//! What ran is played again, long after it is gone.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::serve::Serve;
use support::tmux::Tmux;
use support::verbs::{text, verb};

const BIN: &str = env!("CARGO_BIN_EXE_stacyvm");

fn url(serve: &Serve) -> String {
    serve.api.base.trim_end_matches("/api/v1").to_owned()
}

#[track_caller]
fn output(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Starts a command, and waits for its end.
fn ran(serve: &Serve, sandbox: &str, script: &str) -> String {
    let exec = output(&verb(serve, &["exec", "-d", sandbox, "--shell", "--", script])).trim().to_owned();
    verb(serve, &["attach", &exec]);
    exec
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_gone_is_played_with_its_timing_and_saved() {
    let serve = Serve::start().await;
    let id = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "10m"})).await;
    let first =
        ran(&serve, &id, "printf 'a\\303'; sleep 1; printf '\\251\\n'; sleep 0.2; echo problem >&2; exit 3");
    let second = ran(&serve, &id, "echo second");
    assert_eq!(serve.api.destroy(&id).await, 200);

    let played = verb(&serve, &["replay", &first, "--speed", "inf"]);
    assert_eq!(output(&played), "aé\r\nproblem\r\n");
    let began = Instant::now();
    assert_eq!(output(&verb(&serve, &["replay", &first])), "aé\r\nproblem\r\n");
    assert!(began.elapsed() > Duration::from_millis(900), "the pause is a part of it");

    let all = output(&verb(&serve, &["replay", &id, "--speed", "inf"]));
    let at = |text: &str| all.find(text).unwrap_or_else(|| panic!("{text:?} is not in {all:?}"));
    assert!(
        at(&first) < at("aé\r\n") && at("problem") < at(&second) && at(&second) < at("second\r\n"),
        "{all}"
    );
    let one = verb(&serve, &["replay", &id, "--exec", &second, "--speed", "inf"]);
    assert_eq!(output(&one), "second\r\n");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("first.cast");
    assert_eq!(output(&verb(&serve, &["replay", &first, "--save", path.to_str().unwrap()])), "");
    let saved = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = saved.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["version"], 2, "{saved}");
    let shown: String =
        lines[1..].iter().filter(|line| line[1] == "o").map(|line| line[2].as_str().unwrap()).collect();
    assert_eq!(shown, "aé\r\nproblem\r\n", "{saved}");

    assert_eq!(verb(&serve, &["replay", &id, "--save", "x.cast"]).status.code(), Some(2), "which one?");
    assert_eq!(verb(&serve, &["replay", &first, "--speed", "0"]).status.code(), Some(2));
    assert_eq!(verb(&serve, &["replay", "ex-00000000000000000000000000"]).status.code(), Some(125));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_screen_program_is_played_on_a_terminal_which_comes_back_in_order() {
    let serve = Serve::start().await;
    let id = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "10m"})).await;
    let recorded = Tmux::start(100, 30, &url(&serve), &[BIN, "shell", &id, "--", "vi"]);
    recorded.wait("vi", |screen| screen.matches("\n~").count() > 20);
    recorded.text("ione\rtwo");
    recorded.keys(&["Escape"]);
    recorded.wait_for("one\ntwo\n~");
    let seen = recorded.settled().0;
    recorded.text("dd");
    recorded.wait_for("one\n~");
    recorded.line(":q!");
    assert_eq!(recorded.ended(), 0);
    let events =
        output(&verb(&serve, &["events", "--sandbox", &id, "--type", "exec.started", "--output", "json"]));
    let started: Value = serde_json::from_str(&events).unwrap();
    let exec = started["data"]["exec"].as_str().unwrap();

    let viewer = Tmux::start(100, 30, &url(&serve), &["bash", "--norc", "--noprofile"]);
    viewer.wait_for("local>");
    let before = modes(&viewer);
    viewer.line(&format!("clear; {BIN} replay {exec} --speed 0.2; echo code=$?"));
    viewer.wait("the screen of then", |screen| screen == seen);
    viewer.text(" ");
    viewer.text("q");
    viewer.wait_for("code=0");
    assert_eq!(viewer.ask("#{alternate_on} #{cursor_flag} #{keypad_flag}"), "0 1 0");
    assert_eq!(modes(&viewer), before);
    viewer.line(&format!("clear; {BIN} replay {exec} --speed inf; echo code=$?"));
    viewer.wait_for("code=0");
    assert_eq!(modes(&viewer), before);
}

/// What `stty -a` says of a terminal, asked from outside.
fn modes(terminal: &Tmux) -> String {
    // The shell sets them too, before it prompts.
    terminal.settled();
    let output =
        std::process::Command::new("stty").args(["-a", "-F", &terminal.ask("#{pane_tty}")]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}
