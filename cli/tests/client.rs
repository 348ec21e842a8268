//! The client verbs, as a shell uses them: real processes against a real server and real containers.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail where it stands")]

mod support;

use std::io::{Read as _, Write as _};
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::eventually;
use support::process::stacyvm;
use support::serve::Serve;
use support::verbs::{assert_output, client, text, verb};

const IMAGE: &str = "alpine:latest";

fn piped(serve: &Serve, words: &[&str]) -> Child {
    let mut command = client(serve, words);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn fed(serve: &Serve, words: &[&str], input: &[u8]) -> Output {
    let mut child = piped(serve, words);
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // Beside the reading: a command that echoes stops reading when nobody takes what it writes.
    let writer = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn spawned(serve: &Serve) -> String {
    let output = verb(serve, &["spawn", IMAGE, "--ttl", "5m"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

fn signal(child: &Child, name: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, name).unwrap();
}

/// Reads until this has come.
fn read_until(child: &mut Child, wanted: &str) {
    let stdout = child.stdout.as_mut().unwrap();
    let (mut got, mut byte) = (Vec::new(), [0]);
    while !text(&got).contains(wanted) {
        assert_eq!(stdout.read(&mut byte).unwrap(), 1, "the output ends with {:?}", text(&got));
        got.push(byte[0]);
    }
}

#[tokio::test]
async fn sandboxes_are_made_listed_shown_and_destroyed() {
    let serve = Serve::start().await;
    assert_output(&verb(&serve, &["list", "--output", "json"]), 0, "[]\n");
    let id = spawned(&serve);
    let listed = text(&verb(&serve, &["ls"]).stdout);
    assert!(listed.starts_with("ID ") && listed.contains(&id) && !listed.contains('\x1b'), "{listed}");
    let shown: Value =
        serde_json::from_slice(&verb(&serve, &["get", &id, "--output", "json"]).stdout).unwrap();
    assert_eq!((shown["id"].as_str(), shown["state"].as_str()), (Some(id.as_str()), Some("running")));
    assert!(text(&verb(&serve, &["logs", &id]).stdout).contains("sandbox.running"));
    assert_output(&verb(&serve, &["kill", &id]), 0, &format!("{id}\n"));

    let gone = verb(&serve, &["get", &id]);
    assert_output(&gone, 125, "");
    let errors = text(&gone.stderr);
    assert!(
        errors.contains(&format!("sandbox {id} was destroyed")) && errors.contains("(NOT_FOUND, request "),
        "{errors}"
    );
    let events = verb(&serve, &["events", "--sandbox", &id, "--output", "json"]);
    let types: Vec<String> = text(&events.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        types,
        [
            "sandbox.requested",
            "sandbox.starting",
            "sandbox.running",
            "sandbox.destroying",
            "sandbox.destroyed"
        ]
    );
    assert_eq!(verb(&serve, &["kill", &id]).status.code(), Some(125));
    assert_eq!(verb(&serve, &["exec", &id]).status.code(), Some(125), "a command is missing");
}

#[tokio::test]
async fn a_command_gives_its_bytes_and_its_exit_code() {
    let serve = Serve::start().await;
    let id = spawned(&serve);
    let exec = |words: &[&str]| verb(&serve, &[&["exec", &id], words].concat());
    assert_output(&exec(&["--", "printf", "%s|", "a  b", "$HOME"]), 0, "a  b|$HOME|");
    let both = exec(&["--shell", "-e", "A=b c", "--", "echo $A; echo problem >&2; exit 7"]);
    assert_output(&both, 7, "b c\n");
    assert_eq!(text(&both.stderr), "problem\n");
    assert_eq!(exec(&["--", "printf", "\\377\\000\\200"]).stdout, b"\xff\x00\x80");
    let late = exec(&["--timeout", "300ms", "--shell", "--", "echo before; sleep 20"]);
    assert_output(&late, 124, "before\n");
    assert!(text(&late.stderr).contains("time was up"), "{}", text(&late.stderr));
    let json = text(&exec(&["--output", "json", "--", "echo", "x"]).stdout);
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines[0]["data"].as_str(), lines[1]["exit_code"].as_i64()), (Some("x\n"), Some(0)), "{json}");

    let input: Vec<u8> = (0..1_000_000u32).map(|i| (i * 7) as u8).collect();
    let echoed = fed(&serve, &["exec", "-i", &id, "--", "cat"], &input);
    assert!(echoed.stdout == input, "{} bytes came back: {}", echoed.stdout.len(), text(&echoed.stderr));
}

#[tokio::test]
async fn files_are_copied_byte_for_byte() {
    let serve = Serve::start().await;
    let id = spawned(&serve);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("data.bin");
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i >> 5) as u8).collect();
    std::fs::write(&local, &bytes).unwrap();
    let local = local.to_str().unwrap();

    assert_output(&verb(&serve, &["cp", local, &format!("{id}:/tmp/")]), 0, "");
    let back = folder.path().join("back");
    let there = format!("{id}:/tmp/data.bin");
    assert_output(&verb(&serve, &["cp", &there, back.to_str().unwrap()]), 0, "");
    assert!(std::fs::read(&back).unwrap() == bytes);
    assert_output(&fed(&serve, &["cp", "-", &format!("{id}:note")], b"hello\n"), 0, "");
    assert_output(&verb(&serve, &["cp", &format!("{id}:/workspace/note"), "-"]), 0, "hello\n");

    assert_output(&verb(&serve, &["cp", &format!("{id}:/nowhere"), back.to_str().unwrap()]), 125, "");
    assert!(std::fs::read(&back).unwrap() == bytes, "a copy that failed leaves what was there");
    assert_eq!(verb(&serve, &["cp", "a", "b"]).status.code(), Some(2));
}

#[tokio::test]
async fn run_leaves_nothing_behind_however_it_ends() {
    let serve = Serve::start().await;
    assert_output(&verb(&serve, &["run", IMAGE, "--", "sh", "-c", "echo hi; exit 5"]), 5, "hi\n");

    let mut interrupted = piped(&serve, &["run", IMAGE, "--", "sh", "-c", "echo up; sleep 60"]);
    read_until(&mut interrupted, "up\n");
    signal(&interrupted, rustix::process::Signal::INT);
    assert_eq!(interrupted.wait().unwrap().code(), Some(130));

    // It does not hear the first one: the second is for us.
    let deaf = "trap '' INT; echo up; while :; do sleep 1; done";
    let mut stubborn = piped(&serve, &["run", IMAGE, "--", "sh", "-c", deaf]);
    read_until(&mut stubborn, "up\n");
    signal(&stubborn, rustix::process::Signal::INT);
    tokio::time::sleep(Duration::from_millis(300)).await;
    signal(&stubborn, rustix::process::Signal::INT);
    assert_eq!(stubborn.wait().unwrap().code(), Some(130));

    // Nobody reads on, as with `| head -1`.
    let mut endless = piped(&serve, &["run", IMAGE, "--", "yes"]);
    read_until(&mut endless, "y\n");
    drop(endless.stdout.take());
    let output = endless.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(141), ""));

    assert_output(&verb(&serve, &["list", "--output", "json"]), 0, "[]\n");
    eventually("no container is left", Duration::from_secs(10), || {
        let left = serve.containers();
        async move { left.is_empty().then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn a_signal_reaches_the_command() {
    let serve = Serve::start().await;
    let id = spawned(&serve);
    for (name, trapped) in [(rustix::process::Signal::INT, "INT"), (rustix::process::Signal::TERM, "TERM")] {
        let script = format!("trap 'echo caught; exit 42' {trapped}; echo up; while :; do sleep 0.1; done");
        let mut child = piped(&serve, &["exec", "--shell", &id, "--", &script]);
        read_until(&mut child, "up\n");
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert_output(&output, 42, "caught\n");
    }
}

#[tokio::test]
async fn a_stream_goes_on_where_it_stood_when_the_server_is_killed() {
    let mut serve = Serve::start().await;
    let id = spawned(&serve);
    let script = "i=0; while [ $i -lt 40000 ]; do echo line $i; i=$((i+1)); [ $((i % 500)) = 0 ] && sleep 0.05; done; exit 9";
    let mut child = piped(&serve, &["exec", "--shell", &id, "--", script]);
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).unwrap();
        all
    });
    tokio::time::sleep(Duration::from_millis(800)).await;
    serve.kill_and_restart().await;
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let expected: String = (0..40000).map(|i| format!("line {i}\n")).collect();
    assert!(reader.join().unwrap() == expected.as_bytes(), "lines are missing or double");
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(9), "{errors}");
    assert!(errors.contains("going on where it stood"), "the stream was not broken at all: {errors}");
}

#[test]
fn without_a_server_the_user_is_told_how_to_start_one() {
    let mut command = stacyvm();
    let port = support::process::free_port();
    let output = command.args(["list", "--url", &format!("http://127.0.0.1:{port}")]).output().unwrap();
    assert_output(&output, 125, "");
    let errors = text(&output.stderr);
    assert!(errors.contains("no server answers at") && errors.contains("stacyvm serve"), "{errors}");
}

#[test]
fn a_server_without_tls_is_told_of_in_plain_words() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        // The client's side of the handshake has come; what goes back is no TLS.
        std::io::Read::read(&mut connection, &mut [0; 4096]).unwrap();
        std::io::Write::write_all(&mut connection, b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Open until the client has seen it.
        let _ = std::io::Read::read_to_end(&mut connection, &mut Vec::new());
    });
    let output = stacyvm().args(["list", "--url", &format!("https://127.0.0.1:{port}")]).output().unwrap();
    server.join().unwrap();
    assert_output(&output, 125, "");
    let errors = text(&output.stderr);
    assert!(errors.contains("what listens there does not speak TLS: is it http://?"), "{errors}");
}
