//! Attaching to execs, end to end: a real server, a real container, a real terminal.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use serde_json::json;
use support::serve::Serve;
use support::verbs::{assert_output, text, verb};
use support::viewer::{Viewer, detach};

#[tokio::test]
async fn a_detached_shell_is_typed_into_resized_and_interrupted_and_outlives_its_gateway() {
    let mut serve = Serve::start().await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let shell = json!({
        "command": "bash", "args": ["--norc", "-i"], "mode": "argv", "env": {"PS1": "$ "},
        "tty": true, "rows": 20, "cols": 70
    });
    let exec = detach(&serve.api, &sandbox, shell).await;
    let mut viewer = Viewer::attach(&serve.api, &exec, "").await;
    let mut watcher = Viewer::attach(&serve.api, &exec, "mode=ro").await;
    assert_eq!((&viewer.control[0]["mode"], &watcher.control[0]["mode"]), (&json!("rw"), &json!("ro")));

    viewer.until_text("$ ").await;
    assert!(!viewer.text().contains("job control"), "{}", viewer.text());
    viewer.type_in(b"stty size; echo term=$TERM; tty\n").await;
    viewer.until_text("20 70").await;
    viewer.until_text("term=xterm-256color").await;
    viewer.until_text("/dev/pts/").await;

    // The program hears of a resize, and so does everybody who watches.
    viewer.type_in(b"trap 'stty size' WINCH\n").await;
    viewer.say(json!({"type": "resize", "rows": 33, "cols": 111})).await;
    watcher.until("resized").await;
    viewer.until_text("33 111").await;

    // Ctrl-C ends what is in the foreground, and not the shell.
    viewer.type_in(b"sleep 1000; echo after=$?\n").await;
    viewer.until_text("sleep 1000; echo").await;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    viewer.type_in(b"\x03").await;
    viewer.until_text("^C").await;
    viewer.type_in(b"sleep 1000 & jobs; kill %1; echo still=here\n").await;
    viewer.until_text("still=here\r").await;

    // Who may only watch cannot type, and goes on watching.
    watcher.type_in(b"exit 3\n").await;
    watcher.until("error").await;
    watcher.until_text("still=here\r").await;

    // Detached, the shell goes on; attached again through another gateway, from where it was.
    let seen = viewer.stdout.clone();
    drop(viewer);
    serve.kill_and_restart().await;
    let mut again = Viewer::attach(&serve.api, &exec, &format!("stdout_offset={}", seen.len() - 10)).await;
    again.type_in(b"echo back=$((40+2))\n").await;
    again.until_text("back=42").await;
    assert!(again.stdout.starts_with(&seen[seen.len() - 10..]));
    // EOF ends the shell.
    again.type_in(b"\x04").await;
    let exit = again.until("exit").await;
    assert_eq!((&exit["outcome"], &exit["exit_code"]), (&json!("exited"), &json!(0)), "{exit}");
    again.rest().await;
    assert_eq!(again.closed.as_ref().map(|(code, _)| *code), Some(1000));

    // The whole of it, long after, is what was seen live.
    let mut whole = Viewer::attach(&serve.api, &exec, "").await;
    whole.rest().await;
    let tail = &again.stdout;
    assert_eq!(whole.stdout[..seen.len()], seen[..]);
    assert_eq!(whole.stdout[seen.len() - 10..], tail[..]);
    let resizes: Vec<_> = whole.control.iter().filter(|control| control["type"] == "resized").collect();
    assert_eq!(resizes, [&json!({"type": "resized", "rows": 33, "cols": 111})]);
}

#[tokio::test]
async fn input_is_streamed_to_one_process_by_many_and_it_is_killed_with_its_children() {
    let serve = Serve::start().await;
    let api = &serve.api;
    let sandbox = api.spawn(json!({"image": "alpine:latest"})).await;

    // A body of many pieces, through a process that reads slowly at first.
    let count = json!({"command": "sleep 0.5; cat | sha256sum", "stdin": true});
    let exec = detach(api, &sandbox, count).await;
    let mut viewer = Viewer::attach(api, &exec, "").await;
    let piece: Vec<u8> = (0..(1u32 << 20)).map(|index| (index % 251) as u8).collect();
    let chunks: Vec<Result<Vec<u8>, std::io::Error>> = (0..12).map(|_| Ok(piece.clone())).collect();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
    let running = async || (api.get(&format!("/execs/{exec}")).await.1["state"] == "running").then_some(());
    support::eventually("it runs", std::time::Duration::from_secs(20), running).await;
    let url = api.url(&format!("/execs/{exec}/stdin?close=true"));
    let answer = api.http.post(&url).body(body).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{}", answer.text().await.unwrap());
    viewer.until("exit").await;
    let sum = sha256(&piece.repeat(12));
    assert_eq!(viewer.text(), format!("{sum}  -\n"));
    let late = api.http.post(&url).body("x").send().await.unwrap();
    assert_eq!(late.status().as_u16(), 409);

    // Two who type into one process, and one who watches: everybody sees the same.
    let exec = detach(api, &sandbox, json!({"command": "cat", "mode": "argv", "stdin": true})).await;
    let mut one = Viewer::attach(api, &exec, "").await;
    let mut two = Viewer::attach(api, &exec, "").await;
    for index in 0..50 {
        one.type_in(format!("one {index}\n").as_bytes()).await;
        two.type_in(format!("two {index}\n").as_bytes()).await;
    }
    one.until_text("one 49\n").await;
    one.until_text("two 49\n").await;
    two.say(json!({"type": "stdin_close"})).await;
    let exit = one.until("exit").await;
    assert_eq!(exit["exit_code"], 0, "{exit}");
    two.rest().await;
    one.rest().await;
    assert_eq!(one.stdout, two.stdout);
    for name in ["one", "two"] {
        let lines: Vec<String> =
            one.text().lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect();
        let expected: Vec<String> = (0..50).map(|index| format!("{name} {index}")).collect();
        assert_eq!(lines, expected, "each writer's lines are whole and in order");
    }
    let output = api.http.get(api.url(&format!("/execs/{exec}/output"))).send().await.unwrap();
    assert_eq!(output.bytes().await.unwrap(), one.stdout);

    // A tree that ignores SIGTERM is gone after a kill.
    let tree = "trap '' TERM; (trap '' TERM; setsid sleep 4242) & sleep 4243 & echo up; wait";
    let exec = detach(api, &sandbox, json!({"command": tree})).await;
    let mut viewer = Viewer::attach(api, &exec, "mode=ro").await;
    viewer.until_text("up\n").await;
    let killed = api.http.delete(api.url(&format!("/execs/{exec}"))).send().await.unwrap();
    assert_eq!(killed.status().as_u16(), 200);
    let end: serde_json::Value = killed.json().await.unwrap();
    assert_eq!(end["state"], "killed", "{end}");
    viewer.until("exit").await;
    let left = api
        .exec(
            &sandbox,
            "ps -ef 2>/dev/null | grep 'sleep 424[23]' || grep -l 424[23] /proc/[0-9]*/cmdline || echo none",
        )
        .await;
    assert_eq!(left["stdout"], "none\n", "{left}");
    let again = api.http.delete(api.url(&format!("/execs/{exec}"))).send().await.unwrap();
    assert_eq!(again.json::<serde_json::Value>().await.unwrap()["ended_at"], end["ended_at"]);

    // What a client did is in the log, with its name.
    let events = api.http.get(api.url("/events?after=0&follow=false&types=exec.signaled,exec.requested"));
    let events = events.send().await.unwrap().text().await.unwrap();
    assert!(events.contains("exec.signaled") && events.contains("\"actor\":\"client:\""), "{events}");

    // A destroyed sandbox leaves no exec without an end.
    let exec = detach(api, &sandbox, json!({"command": "sleep 1000"})).await;
    assert_eq!(api.destroy(&sandbox).await, 200);
    let (_, state) = api.get(&format!("/execs/{exec}")).await;
    assert!(["killed", "failed", "outcome_unknown"].contains(&state["state"].as_str().unwrap()), "{state}");
}

#[tokio::test]
async fn a_viewer_link_watches_until_it_expires() {
    let serve = Serve::start().await;
    let api = &serve.api;
    let sandbox = api.spawn(json!({"image": "alpine:latest"})).await;
    let exec = detach(api, &sandbox, json!({"command": "echo up; cat", "stdin": true})).await;
    let (status, link) = api.post(&format!("/execs/{exec}/viewers"), json!({"ttl": "3s"})).await;
    assert_eq!(status, 201, "{link}");
    let query = format!("mode=rw&viewer={}", link["token"].as_str().unwrap());
    let mut viewer = Viewer::attach(api, &exec, &query).await;
    assert_eq!(viewer.control[0]["mode"], "ro");
    viewer.until_text("up\n").await;
    viewer.type_in(b"no\n").await;
    assert_eq!(viewer.until("error").await["code"], "FORBIDDEN");
    viewer.rest().await;
    assert_eq!(viewer.closed, Some((1008, "the viewer link has expired".to_owned())));
    assert_eq!(Viewer::try_attach(api, &exec, &query).await.err(), Some(401));
    assert!(!serve.process.log_text().contains(link["token"].as_str().unwrap()));
    assert_eq!(viewer.text(), "up\n");

    // The same by hand: made, listed and revoked, which ends what it has opened.
    let made = text(&verb(&serve, &["share", &exec, "--ttl", "2h"]).stdout);
    let [link, address] = made.lines().collect::<Vec<_>>()[..] else { panic!("{made}") };
    let watching = reqwest::get(address).await.unwrap();
    assert_eq!(watching.status(), 200);
    let listed = verb(&serve, &["share", &exec, "--list", "--output", "json"]);
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["id"]), (1, &json!(link)));
    assert_output(&verb(&serve, &["share", &exec, "--revoke", link]), 0, &format!("{link}\n"));
    assert!(watching.bytes().await.is_err(), "it breaks off");
    assert_eq!(reqwest::get(address).await.unwrap().status(), 401);
    let table = text(&verb(&serve, &["share", &exec, "--list"]).stdout);
    assert!(!table.contains(link), "{table}");
    assert_eq!(verb(&serve, &["share", &exec, "--revoke", link]).status.code(), Some(125));
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(bytes))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_that_stops_reading_is_closed_with_where_to_go_on_and_nobody_else_notices() {
    let expected: Vec<u8> = (1..=2_500_000).flat_map(|line: u32| format!("{line}\n").into_bytes()).collect();
    let yaml = "server:\n  slow_reader_limit: 2s\n";
    let serve = Serve::with_config("docker", &[], yaml).await;
    let api = &serve.api;
    let sandbox = api.spawn(json!({"image": "alpine:latest"})).await;
    let print = json!({"command": "read go; seq 1 2500000", "stdin": true});
    let exec = detach(api, &sandbox, print).await;
    let mut slow = Viewer::attach(api, &exec, "").await;
    let mut quick = Vec::new();
    for _ in 0..3 {
        quick.push(Viewer::attach(api, &exec, "mode=ro").await);
    }
    slow.type_in(b"go\n").await;
    let readers: Vec<_> = quick
        .into_iter()
        .map(|mut viewer| {
            tokio::spawn(async move {
                viewer.rest().await;
                viewer
            })
        })
        .collect();
    for reader in readers {
        let viewer = reader.await.unwrap();
        assert_eq!(viewer.closed.as_ref().map(|(code, _)| *code), Some(1000));
        assert!(viewer.stdout == expected, "{} of {} bytes", viewer.stdout.len(), expected.len());
    }
    // Closed it is told when it reads again: after what was on its way.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    slow.rest().await;
    let (code, reason) = slow.closed.take().unwrap();
    assert_eq!(code, 1013, "{reason}");
    assert!(slow.stdout.len() < expected.len());
    let cursor: serde_json::Value = serde_json::from_str(&reason).unwrap();
    assert_eq!(cursor, json!({"stdout_offset": slow.stdout.len(), "stderr_offset": 0}));
    let mut resumed = Viewer::attach(api, &exec, &format!("stdout_offset={}", slow.stdout.len())).await;
    resumed.rest().await;
    assert!([slow.stdout, resumed.stdout].concat() == expected, "neither gap nor duplicate");
}
