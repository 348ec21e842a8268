//! Very many who watch one exec, and one of many who stops watching.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::api::Api;
use support::serve::Serve;
use support::viewer::{Viewer, detach};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// What the exec prints: lines of ten bytes.
fn printed(bytes: usize) -> Vec<u8> {
    (1..=bytes / 10).map(|line| format!("{line:09}\n")).collect::<String>().into_bytes()
}

/// Waits for a line of input, and then prints in a hundred bursts.
fn printer(bytes: usize) -> Value {
    let burst = bytes / 10 / 100;
    let command = format!(
        "read go; i=0; while [ $i -lt 100 ]; do seq -f %09.0f $((i*{burst}+1)) $(((i+1)*{burst})); i=$((i+1)); sleep 0.02; done"
    );
    json!({"command": command, "stdin": true})
}

/// Each viewer is a socket at both ends, and both are in this test's limits or in those of the server it starts.
fn allow_many_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).unwrap();
    assert!(limit.maximum.is_none_or(|most| most >= 4_096), "a hard limit of {:?} open files", limit.maximum);
}

/// Reads to the end, holding each byte against what was printed. True: all of it came, and the close was 1000.
async fn watch(api: Api, exec: String, expected: Arc<Vec<u8>>, ready: Arc<tokio::sync::Barrier>) -> bool {
    let url = api.url(&format!("/execs/{exec}/attach?mode=ro")).replacen("http", "ws", 1);
    let (mut socket, _) = connect_async(url).await.unwrap();
    ready.wait().await;
    let mut at = 0;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Binary(frame) if frame[0] == 1 => {
                let offset = u64::from_be_bytes(frame[1..9].try_into().unwrap());
                let end = at + frame.len() - 9;
                assert_eq!(offset, at as u64);
                assert!(expected.get(at..end) == Some(&frame[9..]), "other bytes from {at} on");
                at = end;
            }
            Message::Close(Some(close)) => return at == expected.len() && u16::from(close.code) == 1000,
            Message::Binary(_) | Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
            Message::Close(_) | Message::Frame(_) => return false,
        }
    }
    false
}

/// So many watch one exec from its beginning to its end. How long it ran, by its own account.
async fn fan_out(serve: &Serve, sandbox: &str, viewers: usize, expected: &Arc<Vec<u8>>) -> Duration {
    let exec = detach(&serve.api, sandbox, printer(expected.len())).await;
    let ready = Arc::new(tokio::sync::Barrier::new(viewers + 1));
    let mut watching = tokio::task::JoinSet::new();
    for _ in 0..viewers {
        watching.spawn(watch(serve.api.clone(), exec.clone(), Arc::clone(expected), Arc::clone(&ready)));
    }
    ready.wait().await;
    let mut starter = Viewer::attach(&serve.api, &exec, &format!("stdout_offset={}", expected.len())).await;
    starter.type_in(b"go\n").await;
    let exit = starter.until("exit").await;
    let mut whole = 0;
    while let Some(watched) = watching.join_next().await {
        whole += usize::from(watched.unwrap());
    }
    assert_eq!(whole, viewers, "viewers that got every byte");
    let duration = exit["duration"].as_str().unwrap();
    spelling::parse_go_duration(duration).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_viewers_get_every_byte_and_hardly_slow_the_one_who_prints() {
    allow_many_files();
    let serve = Serve::with_provider("bubblewrap").await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let expected = Arc::new(printed(10_000_000));
    let alone = fan_out(&serve, &sandbox, 1, &expected).await;
    let watched = fan_out(&serve, &sandbox, 1_000, &expected).await;
    eprintln!("10 MB take {alone:?} with one viewer and {watched:?} with a thousand");
    // What viewers have not read waits in the record, so that the printer waits for the recorder alone. A thousand
    // readers on the same few processors take some of the recorder's time all the same: the bound is for a printer that
    // is made to wait for them, which takes as long as ten gigabytes take.
    assert!(watched < alone * 2 + Duration::from_secs(2), "{watched:?} instead of {alone:?}");
    let rss = serve.process.rss_kib() >> 10;
    assert!(rss < 1_024, "{rss} MiB resident with a thousand viewers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_hundred_who_stops_reading_is_closed_with_a_cursor_and_nobody_else_notices() {
    let serve = Serve::with("bubblewrap", &[("STACYVM_SERVER_SLOW_READER_LIMIT", "1s")]).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    // More than what lies between two ends of a connection.
    let expected = Arc::new(printed(12_000_000));
    let exec = detach(&serve.api, &sandbox, printer(expected.len())).await;
    let mut stopped = Viewer::attach_with_buffer(&serve.api, &exec, 64 << 10).await;
    let ready = Arc::new(tokio::sync::Barrier::new(100));
    let mut watching = tokio::task::JoinSet::new();
    for _ in 0..99 {
        watching.spawn(watch(serve.api.clone(), exec.clone(), Arc::clone(&expected), Arc::clone(&ready)));
    }
    ready.wait().await;
    stopped.type_in(b"go\n").await;
    while stopped.stdout.len() < 100_000 {
        assert!(stopped.step().await);
    }
    let mut whole = 0;
    while let Some(watched) = watching.join_next().await {
        whole += usize::from(watched.unwrap());
    }
    assert_eq!(whole, 99, "viewers that got every byte while one took nothing");
    // Long enough for the server to lose its patience; what was on its way by then still comes.
    tokio::time::sleep(Duration::from_secs(2)).await;
    stopped.rest().await;
    let (code, reason) = stopped.closed.clone().expect("closed with a reason");
    assert_eq!(code, 1013, "{reason}");
    let cursor: Value = serde_json::from_str(&reason).unwrap();
    assert_eq!(cursor["stdout_offset"].as_u64(), Some(stopped.stdout.len() as u64));
    assert!(stopped.stdout.len() < expected.len(), "all of it fitted into the buffers");
    let resumed = format!("mode=ro&stdout_offset={}", cursor["stdout_offset"]);
    let mut rest = Viewer::attach(&serve.api, &exec, &resumed).await;
    rest.rest().await;
    assert_eq!(rest.closed.as_ref().map(|(code, _)| *code), Some(1000));
    let both = [stopped.stdout, rest.stdout].concat();
    assert_eq!(Sha256::digest(&both), Sha256::digest(&*expected));
}
