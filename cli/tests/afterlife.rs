//! A sandbox that is destroyed, with its executor gone and its gateway new: all that was seen live is still told.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use support::api::Api;
use support::split::Split;
use support::viewer::{Viewer, detach};

const LINES: usize = 20_000;

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// What a client that follows the events of a sandbox gets, line by line.
fn follow_events(api: &Api, sandbox: &str) -> tokio::task::JoinHandle<Vec<String>> {
    let request = api.http.get(api.url(&format!("/events?sandbox={sandbox}&after=0&format=ndjson")));
    tokio::spawn(async move {
        let mut body = request.send().await.unwrap().bytes_stream();
        let (mut lines, mut rest) = (Vec::new(), Vec::new());
        while let Some(Ok(bytes)) = body.next().await {
            rest.extend_from_slice(&bytes);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8(rest.drain(..=end).collect()).unwrap();
                if line.len() > 1 {
                    let over = line.contains("\"type\":\"sandbox.destroyed\"");
                    lines.push(line);
                    if over {
                        return lines;
                    }
                }
            }
        }
        lines
    })
}

async fn bytes(api: &Api, path: &str) -> Vec<u8> {
    let answer = api.http.get(api.url(path)).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{path}");
    answer.bytes().await.unwrap().to_vec()
}

/// All entries, page by page.
async fn timeline(api: &Api, sandbox: &str) -> Vec<Value> {
    let (mut entries, mut after) = (Vec::new(), json!(0));
    while !after.is_null() {
        let path = format!("/sandboxes/{sandbox}/timeline?limit=2&after={after}");
        let (status, mut page) = api.get(&path).await;
        assert_eq!(status, 200, "{page}");
        entries.append(page["entries"].as_array_mut().unwrap());
        after = page["next_after"].clone();
    }
    entries
}

/// What a player of the recording shows.
fn shown(recording: &[u8]) -> String {
    let text = std::str::from_utf8(recording).unwrap();
    let events = text.lines().skip(1).map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event[1] == "o").map(|event| event[2].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_a_client_saw_live_is_told_when_the_sandbox_and_its_executor_are_gone() {
    let mut split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    let (status, alive) = split.api.get(&format!("/sandboxes/{sandbox}")).await;
    assert_eq!(status, 200);
    let followed = follow_events(&split.api, &sandbox);
    let command = format!(
        "i=0; while [ $i -lt 10 ]; do seq $((i*{0}+1)) $(((i+1)*{0})); i=$((i+1)); sleep 0.1; done; exit 3",
        LINES / 10
    );
    let exec = detach(&split.api, &sandbox, json!({"command": command})).await;
    let mut viewer = Viewer::attach(&split.api, &exec, "mode=ro").await;
    viewer.rest().await;
    let live = viewer.stdout;
    assert_eq!(live, (1..=LINES).map(|line| format!("{line}\n")).collect::<String>().into_bytes());
    let (status, ended) = split.api.get(&format!("/execs/{exec}")).await;
    assert_eq!((status, &ended["exit_code"]), (200, &json!(3)));
    let recording = bytes(&split.api, &format!("/execs/{exec}/recording")).await;
    assert_eq!(split.api.destroy(&sandbox).await, 200);
    let lines = tokio::time::timeout(Duration::from_secs(30), followed).await.unwrap().unwrap();

    split.executor.kill();
    split.restart_gateway_alone().await;
    let api = &split.api;

    // Output, from its beginning and from its middle.
    let output = bytes(api, &format!("/execs/{exec}/output?stream=stdout&offset=0")).await;
    assert_eq!(hash(&output), hash(&live));
    let middle = live.len() / 2;
    let half = bytes(api, &format!("/execs/{exec}/output?stream=stdout&offset={middle}")).await;
    assert_eq!(hash(&half), hash(&live[middle..]));
    let mut again = Viewer::attach(api, &exec, &format!("mode=ro&stdout_offset={middle}")).await;
    again.rest().await;
    assert_eq!(hash(&again.stdout), hash(&live[middle..]));
    assert_eq!(api.get(&format!("/execs/{exec}")).await, (200, ended));

    // Events, and the timeline that is made of them.
    let replay = bytes(api, &format!("/events?sandbox={sandbox}&after=0&follow=false&format=ndjson")).await;
    // What came after its end, such as those who look at it now, is not part of what was followed.
    let followed = lines.concat();
    assert_eq!(hash(&replay[..followed.len()]), hash(followed.as_bytes()));
    let seen: Vec<(Value, Value)> = lines
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["type"] != "exec.output")
        .map(|event| (event["position"].clone(), event["type"].clone()))
        .collect();
    let mut entries = timeline(api, &sandbox).await;
    assert!(entries[seen.len()..].iter().all(|entry| entry["type"].as_str().unwrap().ends_with("tached")));
    entries.truncate(seen.len());
    let told: Vec<(Value, Value)> =
        entries.iter().map(|entry| (entry["position"].clone(), entry["type"].clone())).collect();
    assert_eq!(told, seen);
    assert_eq!(entries.last().unwrap()["data"]["reason"], "user");

    // The recording, which shows what was printed.
    let late = bytes(api, &format!("/execs/{exec}/recording")).await;
    assert_eq!(hash(&late), hash(&recording));
    let printed = String::from_utf8(live).unwrap().replace('\n', "\r\n");
    assert_eq!(hash(shown(&late).as_bytes()), hash(printed.as_bytes()));

    // The state while it lived, by position and by time.
    let running = entries.iter().find(|entry| entry["type"] == "sandbox.running").unwrap();
    for at in [&running["position"], &running["time"]] {
        let at = at.as_str().map_or_else(|| at.to_string(), str::to_owned);
        let (status, mut past) = api.get(&format!("/sandboxes/{sandbox}?at={at}")).await;
        assert_eq!(status, 200, "{past}");
        assert_eq!(past["position"], running["position"]);
        for field in ["position", "changed_at", "reason"] {
            past.as_object_mut().unwrap().remove(field);
        }
        assert_eq!(past, alive, "as of {at}");
    }
    assert_eq!(api.get(&format!("/sandboxes/{sandbox}")).await.0, 404);
}
