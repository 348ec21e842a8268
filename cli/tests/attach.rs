//! Attaching to execs, end to end: a real server, a real container, a real terminal.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use serde_json::json;
use support::serve::Serve;
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
