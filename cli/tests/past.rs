//! What was, end to end: four processes, a real container, Postgres. The sandbox goes, the executor goes, and all of it is
//! still there, as it was seen live.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use futures::StreamExt;
use serde_json::{Value, json};
use support::api::Api;
use support::split::Split;
use support::viewer::{Viewer, detach};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

/// Prints with pauses, in colour, with characters of more than one byte.
const SCRIPT: &str = r#"for i in 1 2 3 4; do printf "\033[1mlíne $i\033[m\n"; sleep 0.25; done; head -c 300000 /dev/zero | tr '\0' x; exit 7"#;

#[tokio::test]
async fn a_gone_sandbox_is_shown_as_it_was_seen_live() {
    let mut split = Split::start().await;
    let api = split.api.clone();
    let sandbox = api.spawn(json!({"image": "alpine:latest"})).await;
    let (_, running) = api.get(&format!("/sandboxes/{sandbox}")).await;
    let during = head(&api).await;
    let exec = detach(&api, &sandbox, json!({"command": SCRIPT, "tty": true, "rows": 30, "cols": 90})).await;
    let mut viewer = Viewer::attach(&api, &exec, "").await;
    viewer.until("exit").await;
    viewer.rest().await;
    let seen = viewer.stdout.clone();
    assert_eq!(seen.len(), "\x1b[1mlíne 1\x1b[m\r\n".len() * 4 + 300_000);
    let answer = api.http.delete(api.url(&format!("/sandboxes/{sandbox}"))).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    split.executor.kill();
    split.restart_gateway().await;

    // Output, from the beginning and from the middle.
    for offset in [0, 17, seen.len() - 5, seen.len()] {
        let url = api.url(&format!("/execs/{exec}/output?offset={offset}"));
        let bytes = api.http.get(url).send().await.unwrap().bytes().await.unwrap();
        assert_eq!(bytes, seen[offset..], "{offset}");
    }

    // Its state at a time, and at its end.
    assert_eq!(api.get(&format!("/sandboxes/{sandbox}")).await.0, 404);
    let (_, then) = api.get(&format!("/sandboxes/{sandbox}?at={during}")).await;
    for (name, value) in running.as_object().unwrap() {
        assert_eq!(&then[name], value, "{name}");
    }
    let (_, listed) = api.get(&format!("/sandboxes?at={during}")).await;
    assert_eq!(listed, json!([then]));
    let (_, end) = api.get(&format!("/sandboxes/{sandbox}?at=2999-01-01T00:00:00Z")).await;
    assert_eq!((&end["state"], &end["reason"]), (&json!("destroyed"), &json!("user")));
    assert_eq!(api.get("/sandboxes?at=2999-01-01T00:00:00Z").await.1, json!([]));

    // Its timeline.
    let (_, timeline) = api.get(&format!("/sandboxes/{sandbox}/timeline")).await;
    let entries = timeline["entries"].as_array().unwrap();
    let shown = entries.iter().find_map(|entry| entry.get("exec")).unwrap();
    assert_eq!((&shown["exit_code"], &shown["stdout_bytes"]), (&json!(7), &json!(seen.len())));
    assert!(shown["duration_us"].as_u64().unwrap() >= 1_000_000, "{shown}");
    assert_eq!(entries.last().unwrap()["data"]["reason"], "user");

    // Its recording, with its timing.
    for format in ["asciicast-v2", "asciicast-v3"] {
        let url = api.url(&format!("/execs/{exec}/recording?format={format}"));
        let text = api.http.get(url).send().await.unwrap().text().await.unwrap();
        let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let header = lines.next().unwrap();
        let lines: Vec<Value> = lines.collect();
        let output: String = of_code(&lines, "o").iter().map(|line| line[2].as_str().unwrap()).collect();
        assert_eq!(output.as_bytes(), seen, "{format}");
        let times = times(&lines, format == "asciicast-v3");
        let at = |text: &str| {
            let index = lines.iter().position(|line| line[2].as_str().unwrap().contains(text)).unwrap();
            times[index]
        };
        // The script slept 0.75 s before this line. Times are those at which output was seen, and the start may be seen late.
        assert!(at("líne 4") >= 0.4, "{times:?}");
        if format == "asciicast-v3" {
            assert_eq!((&header["term"]["cols"], &header["term"]["rows"]), (&json!(90), &json!(30)));
            assert_eq!(of_code(&lines, "x")[0][2], "7");
        } else {
            assert_eq!((&header["width"], &header["height"]), (&json!(90), &json!(30)));
        }
    }

    // Its replay.
    let url =
        api.url(&format!("/sandboxes/{sandbox}/replay?speed=max&exec={exec}")).replacen("http", "ws", 1);
    let (mut socket, _) = connect_async(url).await.unwrap();
    let mut played = String::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] == "output" {
                assert_eq!(frame["offset"], played.len());
                played.push_str(frame["data"].as_str().unwrap());
            }
        }
    }
    assert_eq!(played.as_bytes(), seen);
}

async fn head(api: &Api) -> u64 {
    let url = api.url("/events?after=0&follow=false&format=ndjson");
    let text = api.http.get(url).send().await.unwrap().text().await.unwrap();
    position(text.lines().last().unwrap())
}

fn position(line: &str) -> u64 {
    serde_json::from_str::<Value>(line).unwrap()["position"].as_u64().unwrap()
}

fn of_code<'a>(lines: &'a [Value], code: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line[1] == code).collect()
}

/// Seconds from the beginning.
fn times(lines: &[Value], intervals: bool) -> Vec<f64> {
    let mut now = 0.0;
    lines
        .iter()
        .map(|line| {
            let time = line[0].as_f64().unwrap();
            now = if intervals { now + time } else { time };
            now
        })
        .collect()
}

#[tokio::test]
async fn a_follower_goes_on_through_another_gateway_without_a_gap_or_a_repeat() {
    let mut split = Split::start().await;
    let api = split.api.clone();
    let sandbox = api.spawn(json!({"image": "alpine:latest"})).await;
    let script =
        "i=0; while [ $i -lt 4000 ]; do echo line $i; i=$((i+1)); [ $((i % 400)) -eq 0 ] && sleep 0.1; done";
    let exec = detach(&api, &sandbox, json!({"command": script})).await;
    let mut lines: Vec<String> = Vec::new();
    let mut breaks = 0;
    while !lines.iter().any(|line| line.contains("\"exec.exited\"")) {
        let after = lines.last().map_or(0, |line| position(line));
        let url = api.url(&format!("/events/ws?after={after}&bodies=true")).replacen("http", "ws", 1);
        let (mut socket, _) = connect_async(url).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message {
                lines.extend(text.lines().map(str::to_owned));
                // In the middle of it, and abruptly.
                if breaks < 2 && lines.len() > 6 * (breaks + 1) {
                    break;
                }
                if lines.iter().any(|line| line.contains("\"exec.exited\"")) {
                    break;
                }
            }
        }
        if breaks < 2 {
            breaks += 1;
            split.restart_gateway().await;
        }
    }
    let positions: Vec<u64> = lines.iter().map(|line| position(line)).collect();
    assert!(positions.windows(2).all(|pair| pair[0] < pair[1]), "{positions:?}");
    let last = positions.last().unwrap();
    let url = api.url("/events?after=0&follow=false&format=ndjson&bodies=true");
    let replayed = api.http.get(url).send().await.unwrap().text().await.unwrap();
    let replayed: Vec<&str> = replayed.lines().filter(|line| position(line) <= *last).collect();
    assert_eq!(lines, replayed);
    let (_, state) = api.get(&format!("/execs/{exec}")).await;
    assert_eq!(state["exit_code"], 0, "{state}");
}
