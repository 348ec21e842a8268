//! The protocol of WebSockets, frame by frame, on every route that has one.

use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};

use super::executor::POURED;
use super::feed::dial;
use super::raw::{Got, Raw, frame, head};
use super::world::{RED, World};

/// Every route, as a path and what is said first. None ends by itself.
struct Routes {
    exec_ws: String,
    others: Vec<String>,
}

impl Routes {
    async fn of(world: &World) -> Self {
        let sandbox = world.sandbox().await;
        // Between the two events lies what the replay waits for, ten times as long.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let body = json!({"command": "hang", "detach": true, "stdin": true});
        let exec = world.post(&format!("/sandboxes/{sandbox}/exec"), body, 202).await;
        let exec = exec["exec_id"].as_str().unwrap();
        Self {
            exec_ws: format!("/sandboxes/{sandbox}/exec/ws"),
            others: vec![
                format!("/execs/{exec}/attach"),
                "/events/ws?from=0".to_owned(),
                format!("/sandboxes/{sandbox}/replay?speed=0.1"),
            ],
        }
    }

    /// A connection to each, on which the conversation has begun.
    async fn open(&self, world: &World) -> Vec<(&str, Raw)> {
        let mut exec = Raw::open(world, &self.exec_ws, None, "").await;
        exec.text(r#"{"type":"start","command":"hang"}"#).await;
        exec.until("up").await;
        let mut all = vec![(self.exec_ws.as_str(), exec)];
        for path in &self.others {
            let mut raw = Raw::open(world, path, None, "").await;
            assert!(matches!(raw.next().await, Got::Frame(0x81 | 0x82, _)), "{path}");
            all.push((path, raw));
        }
        // And one on which nothing has been said yet.
        all.push(("first", Raw::open(world, &self.exec_ws, None, "").await));
        all
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_own_code_on_every_route() {
    let world = World::start().await;
    let routes = Routes::of(&world).await;
    for (code, reason, answer) in [
        (Some(1000), "", (Some(1000), "")),
        (Some(1001), "going away", (Some(1001), "going away")),
        (Some(4321), "é", (Some(4321), "é")),
        (None, "", (None, "")),
    ] {
        for (path, mut raw) in routes.open(&world).await {
            let mut payload = code.map(|code: u16| code.to_be_bytes().to_vec()).unwrap_or_default();
            payload.extend_from_slice(reason.as_bytes());
            raw.say(0x88, &payload).await;
            assert_eq!(raw.closed().await, (answer.0, answer.1.to_owned()), "{path}");
        }
    }
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_told_how_on_every_route() {
    let world = World::start().await;
    let routes = Routes::of(&world).await;
    let text = |first: u8, payload: &[u8]| frame(first, payload, true);
    let too_large = head(0x82, (1 << 20) + 1, true);
    let in_parts: Vec<u8> =
        [text(0x02, &vec![0; 1 << 19]), text(0x00, &vec![0; 1 << 19]), text(0x80, &[0])].concat();
    let cases: Vec<(&str, Vec<u8>, u16)> = vec![
        ("unmasked", frame(0x81, b"{}", false), 1002),
        ("reserved bit 1", text(0xc1, b"{}"), 1002),
        ("reserved bit 2", text(0xa1, b"{}"), 1002),
        ("reserved bit 3", text(0x91, b"{}"), 1002),
        ("reserved bit of a ping", text(0xc9, b""), 1002),
        ("unknown data opcode", text(0x83, b"{}"), 1002),
        ("unknown control opcode", text(0x8b, b""), 1002),
        ("ping in parts", text(0x09, b""), 1002),
        ("close in parts", text(0x08, b""), 1002),
        ("long ping", text(0x89, &[b'x'; 126]), 1002),
        ("nothing to continue", text(0x80, b"{}"), 1002),
        ("another message in between", [text(0x01, b"{"), text(0x81, b"}")].concat(), 1002),
        ("text that is not UTF-8", text(0x81, b"\xff\xfe"), 1007),
        ("half a character", text(0x81, b"\xe2\x98"), 1007),
        ("text in parts that is not UTF-8", [text(0x01, b"\xe2\x98"), text(0x80, b"x")].concat(), 1007),
        ("too large", too_large, 1009),
        ("as large as can be said", head(0x82, u64::MAX >> 1, true), 1009),
        ("too large in parts", in_parts, 1009),
        ("close with half a code", text(0x88, &[3]), 1002),
        ("close with a code for nobody", text(0x88, &1005_u16.to_be_bytes()), 1002),
        ("close with a code of none", text(0x88, &999_u16.to_be_bytes()), 1002),
        ("close that is not UTF-8", text(0x88, b"\x03\xe8\xff"), 1007),
    ];
    for (what, bytes, code) in &cases {
        for (path, mut raw) in routes.open(&world).await {
            raw.write(bytes).await;
            let (got, reason) = raw.closed().await;
            assert_eq!(got, Some(*code), "{what} on {path}: {reason}");
        }
    }
    // None of it costs anybody else anything.
    let exec = world.exec(&routes.exec_ws[11..40], "hello", 200).await;
    assert_eq!(exec["exit_code"], 3);
}

#[tokio::test]
async fn frames_in_parts_with_pings_between_them_are_one_message() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let mut raw = Raw::open(&world, &format!("/sandboxes/{sandbox}/exec/ws"), None, "").await;
    // A character cut in two, and a ping in the middle.
    let start = r#"{"type":"start","command":"hello","args":["☃"]}"#.as_bytes();
    let cut = start.iter().position(|byte| *byte == 0xe2).unwrap() + 1;
    raw.say(0x01, &start[..cut]).await;
    raw.say(0x89, b"there?").await;
    assert_eq!(raw.next().await, Got::Frame(0x8a, b"there?".to_vec()));
    raw.say(0x00, &start[cut..]).await;
    raw.say(0x8a, b"nobody asked").await;
    raw.say(0x80, b"").await;
    raw.until("\"exit\"").await;
    let (code, reason) = raw.closed().await;
    assert_eq!(code, Some(1000));
    let cursor: Value = serde_json::from_str(&reason).unwrap();
    assert!(cursor["exec_id"].as_str().unwrap().starts_with("ex-"), "{reason}");
}

#[tokio::test]
async fn what_is_left_behind_a_close_is_thrown_away_and_nobody_is_cut_off() {
    let world = World::start().await;
    let routes = Routes::of(&world).await;
    for (path, mut raw) in routes.open(&world).await {
        // The limit is said after a few bytes; a client that sends all the rest first still hears why.
        raw.write(&head(0x82, 16 << 20, true)).await;
        raw.write(&vec![0; 16 << 20]).await;
        assert_eq!(raw.closed().await.0, Some(1009), "{path}");
    }
}

#[tokio::test]
async fn a_gateway_that_stops_says_so_on_every_route() {
    let mut world = World::start().await;
    let routes = Routes::of(&world).await;
    let mut all = routes.open(&world).await;
    world.stop.cancel();
    for (path, raw) in &mut all {
        let (code, reason) = raw.closed().await;
        assert_eq!(code, Some(1012), "{path}: {reason}");
        if *path != "first" {
            let cursor: Value = serde_json::from_str(&reason).unwrap();
            assert!(cursor.as_object().is_some_and(|cursor| !cursor.is_empty()), "{path}: {reason}");
        }
    }
    drop(all);
    world.serving.take().unwrap().await.unwrap().unwrap();
}

#[tokio::test]
async fn who_says_nothing_at_all_is_closed_and_who_answers_pings_stays() {
    let change = |config: &mut api_gateway::GatewayConfig| {
        config.websocket_ping = Duration::from_millis(100);
        config.slow_reader_limit = Duration::from_millis(300);
        config.websocket_silence = Duration::from_millis(600);
    };
    let world = World::with(change, true).await;
    let routes = Routes::of(&world).await;
    let (mut lives, _) = dial(&world, "/events/ws?from=now", &[("x-api-key", RED)]).await.unwrap();
    let lives = tokio::spawn(async move {
        let pings = async {
            for _ in 0..20 {
                assert!(!lives.next().await.unwrap().unwrap().is_close());
            }
        };
        tokio::time::timeout(Duration::from_secs(30), pings).await.unwrap();
    });
    for (path, mut raw) in routes.open(&world).await {
        if path != "first" {
            let (code, reason) = raw.closed().await;
            assert_eq!(code, Some(1013), "{path}");
            assert!(reason.starts_with('{') && reason.ends_with('}'), "{path}: {reason}");
        }
    }
    lives.await.unwrap();
}

#[tokio::test]
async fn who_reads_nothing_is_closed_with_where_to_go_on_from_on_every_route() {
    let world = World::with(|config| config.slow_reader_limit = Duration::from_millis(300), true).await;
    let sandbox = world.sandbox().await;
    let mut exec_ws = Raw::open(&world, &format!("/sandboxes/{sandbox}/exec/ws"), Some(128 << 10), "").await;
    exec_ws.text(r#"{"command":"pour"}"#).await;
    let body = json!({"command": "pour", "detach": true});
    let exec = world.post(&format!("/sandboxes/{sandbox}/exec"), body, 202).await;
    let exec = exec["exec_id"].as_str().unwrap();
    let whole = world.ask(Method::GET, &format!("/execs/{exec}/output?follow=true")).send().await.unwrap();
    assert_eq!(whole.bytes().await.unwrap().len() as u64, POURED << 16);
    let mut all = vec![("exec/ws", exec_ws)];
    for path in [
        format!("/execs/{exec}/attach"),
        "/events/ws?bodies=true&from=0".to_owned(),
        format!("/sandboxes/{sandbox}/replay?speed=max"),
    ] {
        all.push(("others", Raw::open(&world, &path, Some(128 << 10), "").await));
    }
    // One of the closed may be another test's.
    world.metric_passes("stacyvm_slow_readers_closed_total", 3.0).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // What was on its way is still there, whole, and then the close.
    for (path, mut raw) in all {
        let (code, reason) = raw.closed().await;
        assert_eq!(code, Some(1013), "{path}: {reason}");
        assert!(serde_json::from_str::<Value>(&reason).unwrap().is_object(), "{path}: {reason}");
    }
}

#[tokio::test]
async fn every_route_takes_the_documented_subprotocol() {
    let world = World::start().await;
    let routes = Routes::of(&world).await;
    let paths = routes.others.iter().chain([&routes.exec_ws]);
    for path in paths {
        let offers = |offers: &str| format!("Sec-WebSocket-Protocol: {offers}\r\n");
        let taken = |raw: &Raw| {
            let line = raw.head.lines().find_map(|line| line.strip_prefix("sec-websocket-protocol: "));
            line.map(str::to_owned)
        };
        let raw = Raw::open(&world, path, None, &offers("x, stacyvm.v1")).await;
        assert_eq!(taken(&raw).as_deref(), Some("stacyvm.v1"), "{path}");
        let raw = Raw::open(&world, path, None, "").await;
        assert_eq!(taken(&raw), None, "{path}");
        let raw = Raw::open(&world, path, None, &offers("nonsense")).await;
        assert_eq!(taken(&raw), None, "{path}");
        let ticket = world.post("/tickets", json!({}), 201).await;
        let ticket = format!("stacyvm.v1, ticket.{}", ticket["ticket"].as_str().unwrap());
        let raw = Raw::open(&world, path, None, &offers(&ticket)).await;
        assert_eq!(taken(&raw).as_deref(), Some("stacyvm.v1"), "{path}");
        let both = "stacyvm.v1, stacyvm.attach.v1";
        let raw = Raw::open(&world, path, None, &offers(both)).await;
        let expected = if path.ends_with("attach") { "stacyvm.attach.v1" } else { "stacyvm.v1" };
        assert_eq!(taken(&raw).as_deref(), Some(expected), "{path}");
    }
}

#[tokio::test]
async fn what_is_no_websocket_request_is_refused_on_every_route() {
    let world = World::start().await;
    let routes = Routes::of(&world).await;
    let right = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    for path in routes.others.iter().chain([&routes.exec_ws]) {
        for (index, wrong) in [
            (0, "Connection: close"),
            (1, "Upgrade: h2c"),
            (2, "Sec-WebSocket-Version: 8"),
            (3, "Sec-WebSocket-Key: c2hvcnQ="),
            (3, "X-Nothing: here"),
        ] {
            let mut headers = right.map(str::to_owned);
            headers[index] = wrong.to_owned();
            let mut raw = Raw::connect(&world, None).await;
            raw.ask("GET", path, &format!("{}\r\n", headers.join("\r\n")), b"").await;
            assert!(raw.head.starts_with("HTTP/1.1 400"), "{path} {wrong}: {}", raw.head);
        }
    }
}
