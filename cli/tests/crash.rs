//! What is killed comes back, and nothing is lost or doubled.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::Duration;

use serde_json::json;
use support::api::{Api, Streamed};
use support::eventually;
use support::process::signal;
use support::serve::Serve;
use support::split::Split;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const LINES: usize = 200_000;

fn numbered() -> Vec<u8> {
    (1..=LINES).flat_map(|number| format!("{number}\n").into_bytes()).collect()
}

/// A process that prints numbered lines for about six seconds.
fn printer() -> String {
    format!(
        "i=0; while [ $i -lt 20 ]; do seq $((i*{0}+1)) $(((i+1)*{0})); i=$((i+1)); sleep 0.3; done; exit 9",
        LINES / 20
    )
}

fn assert_all_lines(output: &[u8]) {
    let expected = numbered();
    if output != expected {
        let same = output.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        panic!(
            "output differs at byte {same}: {} bytes instead of {}, {:?} instead of {:?}",
            output.len(),
            expected.len(),
            String::from_utf8_lossy(&output[same..(same + 40).min(output.len())]),
            String::from_utf8_lossy(&expected[same..(same + 40).min(expected.len())]),
        );
    }
}

/// Reads on from where a stream broke, as often as it breaks.
async fn read_to_the_end(api: &Api, exec: &str, output: &mut Vec<u8>) {
    let began = std::time::Instant::now();
    loop {
        let (status, state) = api.get(&format!("/execs/{exec}")).await;
        let mut rest = Vec::new();
        // A broken connection may have given some bytes: they count.
        let done = api.follow(exec, "stdout", output.len(), &mut rest).await;
        output.extend(rest);
        if status == 200 && done.is_some() && state["exit_code"] == 9 {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(90), "the output does not end: {state}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn every_line_arrives_once_when_the_executor_is_killed_while_it_is_printed() {
    let mut split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let answer = split.api.start_stream(&sandbox, &printer()).await;
    let stream = tokio::spawn(Streamed::read(answer, |_| {}));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    split.restart_executor();
    // The client's own stream, through an untouched gateway, has it all.
    let streamed = tokio::time::timeout(Duration::from_secs(90), stream).await.unwrap().unwrap();
    assert_eq!(streamed.exit_code, Some(9), "{}", split.executor.log_text());
    assert_all_lines(&streamed.stdout);
}

#[tokio::test]
async fn every_line_arrives_once_when_the_gateway_is_killed_while_it_is_printed() {
    let mut split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let answer = split.api.start_stream(&sandbox, &printer()).await;
    let stream = tokio::spawn(Streamed::read(answer, |_| {}));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    split.restart_gateway().await;
    let streamed = stream.await.unwrap();
    assert!(streamed.broken);
    let mut output = streamed.stdout;
    read_to_the_end(&split.api, &streamed.exec.unwrap(), &mut output).await;
    assert_all_lines(&output);
}

#[tokio::test]
async fn every_line_arrives_once_when_the_whole_server_is_killed_while_it_is_printed() {
    let mut serve = Serve::start().await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let answer = serve.api.start_stream(&sandbox, &printer()).await;
    let stream = tokio::spawn(Streamed::read(answer, |_| {}));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    serve.kill_and_restart().await;
    let streamed = stream.await.unwrap();
    assert!(streamed.broken);
    let mut output = streamed.stdout;
    read_to_the_end(&serve.api, &streamed.exec.unwrap(), &mut output).await;
    assert_all_lines(&output);
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_nats_is_killed_under_load() {
    let mut split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let mut clients = Vec::new();
    for client in 0..4 {
        let (api, sandbox) = (split.api.clone(), sandbox.clone());
        clients.push(tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for round in 0..60 {
                let text = format!("{client}-{round}");
                let command = json!({"command": format!("echo {text} | tee -a /workspace/done")});
                let (status, answer) = api.post(&format!("/sandboxes/{sandbox}/exec"), command).await;
                if status == 200 {
                    assert_eq!(answer["stdout"], format!("{text}\n"));
                    acknowledged.push(text);
                } else {
                    assert!(status == 503 || status == 408, "{status}: {answer}");
                }
            }
            acknowledged
        }));
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        split.restart_nats();
    }
    let mut acknowledged = Vec::new();
    for client in clients {
        acknowledged.extend(client.await.unwrap());
    }
    assert!(acknowledged.len() >= 100, "only {} of 240 went through", acknowledged.len());
    let done = eventually("the sandbox answers", Duration::from_secs(30), async || {
        let (status, answer) = split
            .api
            .post(&format!("/sandboxes/{sandbox}/exec"), json!({"command": "cat /workspace/done"}))
            .await;
        (status == 200).then(|| answer["stdout"].as_str().unwrap_or_default().to_owned())
    })
    .await;
    let mut ran: Vec<&str> = done.lines().collect();
    ran.sort_unstable();
    let before = ran.len();
    ran.dedup();
    assert_eq!(ran.len(), before, "something ran twice");
    for text in &acknowledged {
        assert!(ran.binary_search(&text.as_str()).is_ok(), "{text} was acknowledged and did not run");
    }
}

#[tokio::test]
async fn the_recorder_goes_on_where_it_was_killed() {
    let mut split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let answer = split.api.start_stream(&sandbox, &printer()).await;
    let stream = tokio::spawn(Streamed::read(answer, |_| {}));
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        split.restart_recorder();
    }
    let streamed = tokio::time::timeout(Duration::from_secs(90), stream).await.unwrap().unwrap();
    assert_eq!(streamed.exit_code, Some(9));
    assert_all_lines(&streamed.stdout);
}

#[tokio::test]
async fn postgres_may_crash_in_the_middle() {
    let mut split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let answer = split.api.start_stream(&sandbox, &printer()).await;
    let stream = tokio::spawn(Streamed::read(answer, |_| {}));
    tokio::time::sleep(Duration::from_millis(1500)).await;
    split.postgres.crash_and_restart();
    let streamed = tokio::time::timeout(Duration::from_secs(90), stream).await.unwrap().unwrap();
    let mut output = streamed.stdout;
    read_to_the_end(&split.api, &streamed.exec.unwrap(), &mut output).await;
    assert_all_lines(&output);
}

#[tokio::test]
async fn a_gateway_is_not_ready_while_nothing_is_recorded() {
    let mut split = Split::start().await;
    split.recorder.kill();
    eventually("it is not ready", Duration::from_secs(30), async || (!split.api.ready().await).then_some(()))
        .await;
    split.restart_recorder();
    split.wait_ready().await;
}

/// What the gateway sends over NATS, up to the first command that asks for a sandbox: that gets no further, and the gateway is
/// killed as it sends it.
struct Trap {
    port: u16,
    /// Sends the pid of the gateway to kill; answers when it was killed.
    armed: tokio::sync::mpsc::Sender<(u32, tokio::sync::oneshot::Sender<()>)>,
}

impl Trap {
    async fn before(nats_port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (armed, waiting) = tokio::sync::mpsc::channel::<(u32, tokio::sync::oneshot::Sender<()>)>(1);
        let waiting = std::sync::Arc::new(tokio::sync::Mutex::new(waiting));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = tokio::net::TcpStream::connect(("127.0.0.1", nats_port)).await.unwrap();
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let waiting = std::sync::Arc::clone(&waiting);
                tokio::spawn(async move {
                    const COMMAND: &[u8] = b".cmd.spawn.";
                    let (mut buffer, mut seen) = (vec![0; 64 << 10], Vec::new());
                    loop {
                        let count = from_client.read(&mut buffer).await.unwrap_or(0);
                        if count == 0 {
                            return;
                        }
                        seen.extend_from_slice(&buffer[..count]);
                        if seen.windows(COMMAND.len()).any(|window| window == COMMAND)
                            && let Ok((pid, killed)) = waiting.lock().await.try_recv()
                        {
                            signal(pid, 9);
                            killed.send(()).unwrap();
                            return;
                        }
                        seen.drain(..seen.len().saturating_sub(COMMAND.len() - 1));
                        if to_server.write_all(&buffer[..count]).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, armed }
    }
}

#[tokio::test]
async fn a_request_whose_gateway_is_killed_before_its_command_is_carried_out_or_says_why_not() {
    let mut split = Split::start().await;
    let trap = Trap::before(split.nats_port()).await;
    for (body, end) in [
        (json!({"image": "alpine:latest", "metadata": {"kind": "whole"}}), "sandbox.running"),
        // Values of variables are in the command only.
        (json!({"image": "alpine:latest", "env": {"A": "b"}}), "sandbox.failed"),
    ] {
        split.gateway_over(trap.port).await;
        let known: Vec<String> = sandboxes(&split.api).await;
        let (killed, is_killed) = tokio::sync::oneshot::channel();
        trap.armed.send((split.gateway.pid(), killed)).await.unwrap();
        let asked = split.api.http.post(split.api.url("/sandboxes")).json(&body).send();
        let (asked, killed) = tokio::join!(asked, is_killed);
        assert!(killed.is_ok() && asked.is_err(), "{asked:?}");
        split.restart_gateway().await;
        let new = eventually("the request is in the log", Duration::from_secs(30), async || {
            sandboxes(&split.api).await.into_iter().find(|id| !known.contains(id))
        })
        .await;
        let path = format!("/events?sandbox={new}&after=0&follow=false&format=ndjson");
        // Far below the five minutes that a request may wait for room.
        let events = eventually("it is made, or given up", Duration::from_secs(60), async || {
            let answer = split.api.http.get(split.api.url(&path)).send().await.ok()?;
            let events = answer.text().await.ok()?;
            events.contains(end).then_some(events)
        })
        .await;
        if end == "sandbox.running" {
            assert_eq!(events.matches("\"sandbox.running\"").count(), 1, "{events}");
            assert_eq!(split.api.exec(&new, "echo here").await["stdout"], "here\n");
        } else {
            assert!(events.contains("command_lost") && !events.contains("sandbox.starting"), "{events}");
        }
    }
}

/// Those that there are, and those that were given up.
async fn sandboxes(api: &Api) -> Vec<String> {
    let (status, all) = api.get("/sandboxes?all=true").await;
    assert_eq!(status, 200, "{all}");
    all.as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}
