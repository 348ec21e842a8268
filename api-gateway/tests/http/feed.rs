//! The feed of events: live and replayed, over WebSocket, NDJSON and tickets.

use std::time::Duration;

use events::{Event, EventId, ExecId, ExecOutput, ExecStarted, OutputStream, SandboxId};
use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::world::{BLUE, RED, World, error};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

pub async fn dial(world: &World, path: &str, headers: &[(&str, &str)]) -> Result<(Socket, Response), u16> {
    let mut request = world.url(path).replacen("http", "ws", 1).into_client_request().unwrap();
    for (name, value) in headers {
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, response)) => {
            let mut head = tokio_tungstenite::tungstenite::http::Response::new(None);
            *head.headers_mut() = response.headers().clone();
            Ok((socket, head))
        }
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn read(world: &World, path: &str) -> (Vec<String>, Option<CloseFrame>) {
    let (mut socket, _) = dial(world, path, &[("x-api-key", RED)]).await.unwrap();
    lines(&mut socket, |_| false).await
}

/// Lines up to the close, or to the first that is the last one wanted.
async fn lines(socket: &mut Socket, last: impl Fn(&str) -> bool) -> (Vec<String>, Option<CloseFrame>) {
    let mut lines = Vec::new();
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => {
                lines.extend(text.lines().map(str::to_owned));
                if lines.iter().any(|line| last(line)) {
                    return (lines, None);
                }
            }
            Some(Ok(Message::Close(close))) => return (lines, close),
            Some(Ok(_)) => {}
            Some(Err(error)) => panic!("{error}"),
            None => return (lines, None),
        }
    }
}

fn value(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[tokio::test]
async fn live_is_replay_byte_for_byte_over_every_transport() {
    let world = World::start().await;
    for bodies in ["", "&bodies=true"] {
        let first = world.store.head().await.unwrap().position.0 + 1;
        let path = format!("/events/ws?from=now{bodies}");
        let (mut socket, _) = dial(&world, &path, &[("x-api-key", RED)]).await.unwrap();
        let sandbox = world.sandbox().await;
        world.exec(&sandbox, "hello", 200).await;
        let (live, _) = lines(&mut socket, |line| line.contains("\"exec.exited\"")).await;
        assert!(live.len() >= 7, "{live:?}");
        let (replayed, close) = read(&world, &format!("/events/ws?from={first}&follow=false{bodies}")).await;
        assert_eq!(live, replayed);
        let last = value(live.last().unwrap())["position"].clone();
        assert_eq!(value(&close.unwrap().reason), json!({ "position": last }));
        let body = world
            .ask(Method::GET, &format!("/events?from={first}&follow=false&format=ndjson{bodies}"))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert_eq!(body.lines().collect::<Vec<_>>(), live);
        let has_bytes = live.iter().any(|line| line.contains("body_base64"));
        assert_eq!(has_bytes, !bodies.is_empty());
    }
}

#[tokio::test]
async fn filters_times_and_positions_choose_the_same_events() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "hello", 200).await["exec_id"].as_str().unwrap().to_owned();
    world.sandbox().await;
    let (all, _) = read(&world, "/events/ws?from=0&follow=false").await;
    let of = async |query: String| read(&world, &format!("/events/ws?follow=false&from=0{query}")).await.0;
    let matching = |wanted: &dyn Fn(&Value) -> bool| -> Vec<String> {
        all.iter().filter(|line| wanted(&value(line))).cloned().collect()
    };
    assert_eq!(of(format!("&sandbox={sandbox}")).await, matching(&|event| event["subject"] == sandbox));
    assert_eq!(of(format!("&exec={exec}")).await, matching(&|event| event["data"]["exec"] == exec));
    let starts = |event: &Value, with: &str| event["type"].as_str().unwrap().starts_with(with);
    assert_eq!(of("&type=sandbox.*".to_owned()).await, matching(&|event| starts(event, "sandbox.")));
    assert_eq!(of("&type=exec.exited".to_owned()).await, matching(&|event| starts(event, "exec.exited")));
    let time = value(&all[4])["time"].as_str().unwrap().to_owned();
    let (from_time, _) = read(&world, &format!("/events/ws?follow=false&from={time}")).await;
    assert!(from_time.contains(&all[4]) && from_time.len() <= all.len() - 4 + 1, "{from_time:?}");
    assert_eq!(read(&world, "/events/ws?follow=false&after=3").await.0, all[3..]);
    for (path, status) in [
        ("/events/ws?from=yesterday", 400),
        ("/events/ws?type=none", 400),
        ("/events/ws?tenant=blue", 404),
        ("/events/ws?sandbox=sb-00000000000000000000000000", 404),
    ] {
        assert_eq!(dial(&world, path, &[("x-api-key", RED)]).await.err(), Some(status), "{path}");
    }
    for path in [format!("/events/ws?sandbox={sandbox}"), format!("/events/ws?exec={exec}")] {
        assert_eq!(dial(&world, &path, &[("x-api-key", BLUE)]).await.err(), Some(404), "{path}");
    }
    let (mut others, _) =
        dial(&world, "/events/ws?from=0&follow=false", &[("x-api-key", BLUE)]).await.unwrap();
    assert_eq!(lines(&mut others, |_| false).await.0, Vec::<String>::new());
}

#[tokio::test]
async fn a_reader_that_stops_is_closed_with_its_cursor_and_goes_on_exactly() {
    let world = World::with(|config| config.slow_reader_limit = Duration::from_millis(300), false).await;
    let (mut slow, _) = dial(&world, "/events/ws?from=0&bodies=true", &[("x-api-key", RED)]).await.unwrap();
    let (mut quick, _) = dial(&world, "/events/ws?from=0&bodies=true", &[("x-api-key", RED)]).await.unwrap();
    let pieces = 600;
    let whole = tokio::spawn(async move {
        lines(&mut quick, |line| line.contains(&format!("\"offset\":{}", (pieces - 1) * PIECE))).await.0
    });
    print_much(&world, pieces).await;
    let whole = whole.await.unwrap();
    assert_eq!(whole.len() as u64, pieces + 1, "the other reader has everything");
    // The slow one begins to read only now: what was on its way, and then the close.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut seen, close) = lines(&mut slow, |_| false).await;
    let close = close.expect("it was closed");
    assert_eq!(u16::from(close.code), 1013);
    let cursor = value(&close.reason)["position"].as_u64().unwrap();
    assert!(seen.len() < whole.len() && cursor == seen.len() as u64, "{cursor} {}", seen.len());
    let (rest, _) = read(&world, &format!("/events/ws?after={cursor}&follow=false&bodies=true")).await;
    seen.extend(rest);
    assert_eq!(seen, whole);
}

const PIECE: u64 = 64 << 10;

/// Output of one exec, straight into the log.
async fn print_much(world: &World, pieces: u64) {
    let (sandbox, exec) = (SandboxId::new(), ExecId::new());
    let started = ExecStarted {
        exec,
        spec: serde_json::from_str(r#"{"argv":["yes"]}"#).unwrap(),
        env_names: Vec::new(),
        pid: 2,
    };
    let event = |data: events::EventData| Event {
        id: EventId::new(),
        tenant: "red".parse().unwrap(),
        sandbox: Some(sandbox),
        time: chrono::DateTime::from_timestamp(1_750_000_000, 0).unwrap(),
        actor: events::Actor::Reaper,
        cause: None,
        request_id: None,
        traceparent: None,
        data,
    };
    world.log.publish(&[event(started.into())]).await.unwrap();
    let output = |piece: u64| {
        let bytes = vec![b'a' + (piece % 26) as u8; PIECE as usize];
        event(ExecOutput::new(exec, OutputStream::Stdout, piece * PIECE, bytes).into())
    };
    let pieces: Vec<Event> = (0..pieces).map(output).collect();
    for message in pieces.chunks(8) {
        world.log.publish(message).await.unwrap();
    }
}

#[tokio::test]
async fn a_ticket_opens_one_websocket_and_is_not_said_back() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let issue = async || {
        let issued = world.post("/tickets", json!({}), 201).await;
        issued["ticket"].as_str().unwrap().to_owned()
    };
    let ticket = issue().await;
    let offer = format!("stacyvm.v1, ticket.{ticket}");
    let headers = [("sec-websocket-protocol", offer.as_str())];
    let path = format!("/events/ws?sandbox={sandbox}&from=0&follow=false");
    let (mut socket, response) = dial(&world, &path, &headers).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "stacyvm.v1");
    assert_eq!(lines(&mut socket, |_| false).await.0.len(), 3);
    // Spent.
    assert_eq!(dial(&world, &path, &headers).await.err(), Some(401));
    let mut forged = issue().await;
    forged.replace_range(3..4, if &forged[3..4] == "A" { "B" } else { "A" });
    let offer = format!("stacyvm.v1, ticket.{forged}");
    assert_eq!(dial(&world, &path, &[("sec-websocket-protocol", &offer)]).await.err(), Some(401));
    // It is of one tenant as a key is.
    let foreign: Value =
        world.ask_as(BLUE, Method::POST, "/tickets").send().await.unwrap().json().await.unwrap();
    let offer = format!("stacyvm.v1, ticket.{}", foreign["ticket"].as_str().unwrap());
    assert_eq!(dial(&world, &path, &[("sec-websocket-protocol", &offer)]).await.err(), Some(404));
    assert_eq!(error(world.ask_bare(Method::POST, "/tickets"), 401).await, "UNAUTHORIZED");
}

#[tokio::test]
async fn foreign_origins_get_no_websocket() {
    let world = World::start().await;
    let own = format!("http://{}", world.address);
    for (origin, status) in [("https://evil.example", Some(403)), (own.as_str(), None)] {
        let headers = [("x-api-key", RED), ("origin", origin)];
        assert_eq!(dial(&world, "/events/ws", &headers).await.err(), status, "{origin}");
    }
}
