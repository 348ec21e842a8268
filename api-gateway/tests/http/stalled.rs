//! Clients that stop in the middle: of reading an answer, of sending a body, of sending a head.

use std::time::Duration;

use api_gateway::GatewayConfig;
use reqwest::Method;
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::executor::POURED;
use super::raw::Raw;
use super::world::World;

/// Of no other test.
const STALLED: &str = "stacyvm_stalled_clients_closed_total{of=\"answer\"}";
const LIMIT: Duration = Duration::from_millis(400);

fn quick(config: &mut GatewayConfig) {
    config.stalled_client_limit = LIMIT;
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_cut_off_and_can_tell() {
    let world = World::with(quick, true).await;
    let sandbox = world.sandbox().await;
    let body = json!({"command": "pour", "detach": true});
    let exec = world.post(&format!("/sandboxes/{sandbox}/exec"), body, 202).await;
    let exec = exec["exec_id"].as_str().unwrap().to_owned();
    let output = format!("/execs/{exec}/output?follow=true");
    let all = world.ask(Method::GET, &output).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(all.len() as u64, POURED << 16);
    let file = vec![b'f'; 24 << 20];
    let upload = world.ask(Method::PUT, &format!("/sandboxes/{sandbox}/files?path=/big")).body(file);
    assert_eq!(upload.send().await.unwrap().status(), 200);
    let mut before = world.metric(STALLED).await;
    for path in [
        output,
        format!("/execs/{exec}/output"),
        format!("/execs/{exec}/stream"),
        format!("/execs/{exec}/recording"),
        format!("/sandboxes/{sandbox}/files?path=/big"),
        "/events?from=0&format=ndjson&bodies=true".to_owned(),
        "/audit/export?bodies=true".to_owned(),
    ] {
        let mut raw = Raw::connect(&world, Some(128 << 10)).await;
        raw.ask("GET", &path, "", b"").await;
        assert!(raw.head.starts_with("HTTP/1.1 200"), "{path}: {}", raw.head);
        world.metric_passes(STALLED, before).await;
        before += 1.0;
        let (rest, _) = raw.rest().await;
        assert!(rest.len() < 20 << 20, "{path}: {}", rest.len());
        let is_chunked = raw.head.contains("transfer-encoding: chunked");
        assert!(is_chunked || raw.head.contains("content-length"), "{path}: {}", raw.head);
        assert!(!rest.ends_with(b"\r\n0\r\n\r\n"), "{path}: it looks whole");
    }
    // Slowly is no fault.
    let mut raw = Raw::connect(&world, Some(64 << 10)).await;
    raw.ask("GET", &format!("/sandboxes/{sandbox}/files?path=/big"), "", b"").await;
    let mut buffer = vec![0; 4 << 20];
    let mut read = 0;
    while read < 20 << 20 {
        tokio::time::sleep(LIMIT / 20).await;
        let got = raw.stream.read(&mut buffer).await.unwrap();
        assert!(got > 0, "cut off after {read}");
        read += got;
    }
}

#[tokio::test]
async fn who_sends_nothing_of_a_body_hears_408() {
    let world = World::with(quick, true).await;
    let sandbox = world.sandbox().await;
    let body = json!({"command": "hang", "detach": true, "stdin": true});
    let exec = world.post(&format!("/sandboxes/{sandbox}/exec"), body, 202).await;
    let exec = exec["exec_id"].as_str().unwrap();
    for (method, path) in [
        ("POST", "/sandboxes".to_owned()),
        ("POST", format!("/sandboxes/{sandbox}/exec")),
        ("POST", format!("/sandboxes/{sandbox}/files")),
        ("PUT", format!("/sandboxes/{sandbox}/files?path=/slow")),
        ("POST", "/templates".to_owned()),
    ] {
        for kind in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
            let mut raw = Raw::connect(&world, None).await;
            let part: &[u8] = if kind.starts_with('C') { b"{\"a\"" } else { b"4\r\n{\"a\"\r\n" };
            raw.ask(method, &path, kind, part).await;
            assert!(raw.head.starts_with("HTTP/1.1 408"), "{method} {path} {kind}: {}", raw.head);
            let (rest, _) = raw.rest().await;
            assert!(String::from_utf8_lossy(&rest).contains("TIMEOUT"), "{method} {path} {kind}");
        }
    }
    let missing = world.ask(Method::GET, &format!("/sandboxes/{sandbox}/files?path=/slow"));
    assert_eq!(missing.send().await.unwrap().status(), 404, "half of an upload is none");
    // What is typed comes when it comes.
    let mut raw = Raw::connect(&world, None).await;
    let head = format!(
        "POST /api/v1/execs/{exec}/stdin HTTP/1.1\r\nHost: x\r\nX-API-Key: red-secret\r\nContent-Length: 4\r\n\r\na"
    );
    raw.write(head.as_bytes()).await;
    tokio::time::sleep(LIMIT * 3).await;
    raw.write(b"bcd").await;
    raw.answer().await;
    assert!(!raw.head.starts_with("HTTP/1.1 408"), "{}", raw.head);
}

#[tokio::test]
async fn who_sends_no_head_is_not_waited_for() {
    let world = World::with(|config| config.head_limit = LIMIT, false).await;
    for sent in ["", "GET /api/v1/health HTTP/1.1\r\nHo"] {
        let mut raw = Raw::connect(&world, None).await;
        raw.write(sent.as_bytes()).await;
        raw.rest().await;
    }
    // A connection that is kept open for more requests, and gets none.
    let mut raw = Raw::connect(&world, None).await;
    raw.ask("GET", "/health", "", b"").await;
    assert!(raw.head.starts_with("HTTP/1.1 200"), "{}", raw.head);
    raw.rest().await;
}
