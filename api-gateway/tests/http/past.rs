//! The time machine: what was, read from the record.

use std::time::Duration;

use events::{ExecState, Frame, Position, SandboxState};
use futures::{SinkExt, StreamExt};
use record::EventFilter;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::world::{BLUE, RED, World, error};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// A sandbox that lived: an exec that printed, another, a longer deadline, its end.
async fn gone(world: &World) -> String {
    let sandbox = world.sandbox().await;
    world.exec(&sandbox, "hello", 200).await;
    world.post(&format!("/sandboxes/{sandbox}/extend"), json!({"ttl": "2h"}), 200).await;
    world.exec(&sandbox, "split", 200).await;
    world.delete(&format!("/sandboxes/{sandbox}")).await;
    sandbox
}

/// Everything that is recorded of a sandbox.
async fn log_of(world: &World, sandbox: &str) -> Vec<Frame> {
    let filter = EventFilter { sandbox: Some(sandbox.parse().unwrap()), ..EventFilter::default() };
    world.store.read(&filter, Position::ZERO, 1000).await.unwrap()
}

fn word(state: &SandboxState) -> String {
    let phase = serde_json::to_value(&state.phase).unwrap();
    match phase["phase"].as_str().unwrap() {
        "requested" | "starting" => "creating".to_owned(),
        phase => phase.to_owned(),
    }
}

#[tokio::test]
async fn what_has_not_come_yet_is_shown_as_it_is_now() {
    let world = World::start().await;
    let id = world.sandbox().await;
    for path in
        [format!("/sandboxes/{id}?at=2999-01-01T00:00:00Z"), "/sandboxes?at=2999-01-01T00:00:00Z".to_owned()]
    {
        let shown = world.get(&path).await;
        let shown = if shown.is_array() { &shown[0] } else { &shown };
        assert_eq!((&shown["id"], &shown["state"]), (&json!(id), &json!("running")), "{path}");
    }
}

#[tokio::test]
async fn a_sandbox_at_any_position_is_the_fold_of_the_log_up_to_it() {
    let world = World::start().await;
    let first = gone(&world).await;
    let second = gone(&world).await;
    let head = world.store.head().await.unwrap().position;
    for id in [&first, &second] {
        let frames = log_of(&world, id).await;
        for position in 0..=head.0 + 3 {
            let state = frames
                .iter()
                .filter(|frame| frame.position.0 <= position)
                .fold(None, |state, frame| SandboxState::apply(state, &frame.decode().unwrap()));
            let path = format!("/sandboxes/{id}?at={position}");
            let list = world.get(&format!("/sandboxes?at={position}")).await;
            let listed = list.as_array().unwrap().iter().find(|it| it["id"] == **id);
            let Some(state) = state else {
                assert_eq!(error(world.ask(Method::GET, &path), 404).await, "NOT_FOUND");
                assert_eq!(listed, None);
                continue;
            };
            let shown = world.get(&path).await;
            assert_eq!(shown["state"], word(&state), "{position}");
            assert_eq!(shown["expires_at"], serde_json::to_value(state.expires_at).unwrap(), "{position}");
            assert_eq!(shown["reason"], if state.is_terminal() { json!("user") } else { Value::Null });
            assert_eq!(listed, (!state.is_terminal()).then_some(&shown), "{position}");
        }
    }
}

#[tokio::test]
async fn a_time_means_all_that_had_happened_by_then() {
    let world = World::start().await;
    let sandbox = gone(&world).await;
    for frame in log_of(&world, &sandbox).await {
        let event = frame.decode().unwrap();
        let time = event.time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
        let by_time = world.get(&format!("/sandboxes/{sandbox}?at={time}")).await;
        // Several events may have happened in one microsecond.
        assert!(by_time["changed_at"].as_str().unwrap() <= time.as_str(), "{time} {by_time}");
    }
    let before = "2001-01-01T00:00:00Z";
    error(world.ask(Method::GET, &format!("/sandboxes/{sandbox}?at={before}")), 404).await;
    assert_eq!(world.get(&format!("/sandboxes?at={before}")).await, json!([]));
    let ahead = world.get(&format!("/sandboxes/{sandbox}?at=2999-01-01T00:00:00Z")).await;
    assert_eq!(ahead["state"], "destroyed");
    for bad in ["", "yesterday", "-1"] {
        error(world.ask(Method::GET, &format!("/sandboxes/{sandbox}?at={bad}")), 400).await;
        error(world.ask(Method::GET, &format!("/sandboxes?at={bad}")), 400).await;
    }
}

#[tokio::test]
async fn the_past_of_another_tenant_is_not_there() {
    let world = World::start().await;
    let sandbox = gone(&world).await;
    let exec = exec_of(&world, &sandbox).await.id;
    for path in [
        format!("/sandboxes/{sandbox}?at=1000"),
        format!("/sandboxes/{sandbox}/timeline"),
        format!("/execs/{exec}/recording"),
    ] {
        assert_eq!(error(world.ask_as(BLUE, Method::GET, &path), 404).await, "NOT_FOUND", "{path}");
    }
    let list = super::world::json(world.ask_as(BLUE, Method::GET, "/sandboxes?at=4"), 200).await;
    assert_eq!(list, json!([]));
    assert_eq!(dial(&world, &sandbox, "", BLUE, None).await.unwrap_err(), 404);
    assert_eq!(dial(&world, &sandbox, "", RED, Some("https://evil.example")).await.unwrap_err(), 403);
    assert_eq!(dial(&world, &sandbox, "?speed=0", RED, None).await.unwrap_err(), 400);
}

/// The first exec of a sandbox.
async fn exec_of(world: &World, sandbox: &str) -> ExecState {
    world
        .store
        .execs(sandbox.parse().unwrap(), &record::ExecPage { limit: 10, ..record::ExecPage::default() })
        .await
        .unwrap()
        .pop()
        .unwrap()
}

#[tokio::test]
async fn the_timeline_of_a_gone_sandbox_tells_its_whole_life() {
    let world = World::start().await;
    let sandbox = gone(&world).await;
    let timeline = world.get(&format!("/sandboxes/{sandbox}/timeline")).await;
    assert_eq!((&timeline["sandbox"]["state"], &timeline["reason"]), (&json!("destroyed"), &json!("user")));
    let entries = timeline["entries"].as_array().unwrap();
    let types: Vec<&str> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "sandbox.requested",
            "sandbox.starting",
            "sandbox.running",
            "exec.started",
            "exec.exited",
            "sandbox.ttl_extended",
            "exec.started",
            "exec.exited",
            "sandbox.destroyed",
        ]
    );
    let exec = &entries[3]["exec"];
    assert_eq!((&exec["state"], &exec["exit_code"]), (&json!("exited"), &json!(3)));
    assert_eq!((&exec["duration_us"], &exec["duration"]), (&json!(1500), &json!("1.5ms")));
    assert_eq!((&exec["stdout_bytes"], &exec["stderr_bytes"]), (&json!(6), &json!(5)));
    assert_eq!(exec["end_position"], entries[4]["position"]);
    assert_eq!(exec["ended_at"], entries[4]["time"]);
    assert_eq!(entries[4]["exec_id"], exec["id"]);
    assert_eq!(entries[8]["data"]["reason"], "user");

    let mut paged = Vec::new();
    let mut after = 0;
    loop {
        let page = world.get(&format!("/sandboxes/{sandbox}/timeline?limit=3&after={after}")).await;
        paged.extend(page["entries"].as_array().unwrap().clone());
        match page["next_after"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(&paged, entries);
    for bad in ["limit=0", "limit=1001", "after=-1", "after=x"] {
        error(world.ask(Method::GET, &format!("/sandboxes/{sandbox}/timeline?{bad}")), 400).await;
    }
}

#[tokio::test]
async fn an_exec_is_exported_as_a_recording_also_after_its_sandbox_is_gone() {
    let world = World::start().await;
    let sandbox = gone(&world).await;
    let exec = exec_of(&world, &sandbox).await.id;
    let response = world.ask(Method::GET, &format!("/execs/{exec}/recording")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/x-asciicast");
    let lines = lines(&response.text().await.unwrap());
    assert_eq!((&lines[0]["version"], &lines[0]["term"]["cols"]), (&json!(3), &json!(80)));
    let said: Vec<(&Value, &Value)> = lines[1..].iter().map(|line| (&line[1], &line[2])).collect();
    assert_eq!(
        said,
        [(&json!("o"), &json!("hello\r\n")), (&json!("o"), &json!("oops\r\n")), (&json!("x"), &json!("3"))]
    );
    let v2 = world.ask(Method::GET, &format!("/execs/{exec}/recording?format=asciicast-v2"));
    let lines = self::lines(&v2.send().await.unwrap().text().await.unwrap());
    assert_eq!((&lines[0]["version"], &lines[0]["width"], lines.len()), (&json!(2), &json!(80), 3));
    error(world.ask(Method::GET, &format!("/execs/{exec}/recording?format=gif")), 400).await;
}

#[tokio::test]
async fn the_recording_of_a_long_exec_has_every_byte() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    world.exec(&sandbox, "flood", 200).await;
    let exec = exec_of(&world, &sandbox).await.id;
    let text = world.ask(Method::GET, &format!("/execs/{exec}/recording")).send().await.unwrap();
    let lines = lines(&text.text().await.unwrap());
    let output: String =
        lines[1..].iter().filter(|line| line[1] == "o").map(|line| line[2].as_str().unwrap()).collect();
    assert_eq!(output, "x".repeat(400_000));
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn dial(
    world: &World,
    sandbox: &str,
    query: &str,
    key: &str,
    origin: Option<&str>,
) -> Result<Socket, u16> {
    let url = world.url(&format!("/sandboxes/{sandbox}/replay{query}")).replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    request.headers_mut().insert("x-api-key", key.parse().unwrap());
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn frame(socket: &mut Socket) -> Option<Value> {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return Some(serde_json::from_str(&text).unwrap()),
            Message::Close(close) => {
                let close = close.unwrap();
                assert_eq!(u16::from(close.code), 1000, "{close:?}");
                return None;
            }
            Message::Ping(_) | Message::Pong(_) => {}
            other @ (Message::Binary(_) | Message::Frame(_)) => panic!("{other:?}"),
        }
    }
}

async fn rest(socket: &mut Socket) -> Vec<Value> {
    let mut frames = Vec::new();
    while let Some(frame) = frame(socket).await {
        frames.push(frame);
    }
    frames
}

#[tokio::test]
async fn a_replay_shows_every_event_as_it_is_stored_and_all_output() {
    let world = World::start().await;
    let sandbox = gone(&world).await;
    let log = log_of(&world, &sandbox).await;
    let mut socket = dial(&world, &sandbox, "?speed=max", RED, None).await.unwrap();
    let frames = rest(&mut socket).await;
    assert_eq!((&frames[0]["type"], &frames[0]["sandbox_id"]), (&json!("begin"), &json!(sandbox)));
    let last = log.last().unwrap().position.0;
    assert_eq!(frames.last().unwrap(), &json!({"type": "end", "position": last}));
    let played: Vec<Value> =
        frames.iter().filter(|it| it["type"] == "event").map(|it| it["event"].clone()).collect();
    let stored: Vec<Value> = log
        .iter()
        .filter(|frame| frame.body.is_empty())
        .map(|frame| serde_json::from_slice(&frame.header).unwrap())
        .collect();
    assert_eq!(played, stored);
    let output: String = frames
        .iter()
        .filter(|it| it["type"] == "output" && it["stream"] == "stdout")
        .map(|it| it["data"].as_str().unwrap())
        .collect();
    assert_eq!(output, "hello\na\u{1f600}b\u{fffd}");
    assert!(frames.windows(2).all(|pair| pair[0]["position"].as_u64() <= pair[1]["position"].as_u64()));
}

#[tokio::test]
async fn a_replay_goes_from_one_point_to_another_of_one_exec() {
    let world = World::start().await;
    let sandbox = gone(&world).await;
    let exec = exec_of(&world, &sandbox).await.id;
    let log = log_of(&world, &sandbox).await;
    let started = log[3].position.0;
    let query = format!("?speed=max&from={started}&to={}&exec={exec}", started + 1);
    let frames = rest(&mut dial(&world, &sandbox, &query, RED, None).await.unwrap()).await;
    let positions: Vec<u64> = frames[1..].iter().map(|frame| frame["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, [started, started + 1, started + 1]);
}

#[tokio::test]
async fn a_paused_replay_plays_nothing_until_it_is_told_where_to_go_on() {
    let world = World::start().await;
    let sandbox = gone(&world).await;
    let last = log_of(&world, &sandbox).await.last().unwrap().position.0;
    // So slow that nothing after the first event comes by itself while this test looks.
    let mut socket = dial(&world, &sandbox, "?speed=0.1", RED, None).await.unwrap();
    assert_eq!(frame(&mut socket).await.unwrap()["type"], "begin");
    let say = |frame: Value| Message::text(frame.to_string());
    socket.send(say(json!({"type": "pause"}))).await.unwrap();
    socket.send(say(json!({"type": "seek", "position": last}))).await.unwrap();
    socket.send(say(json!({"type": "speed", "speed": "max"}))).await.unwrap();
    // What was sent before the pause arrived may still come.
    loop {
        let next = frame(&mut socket).await.unwrap();
        if next["type"] == "seeked" {
            assert_eq!(next["position"], last);
            break;
        }
    }
    socket.send(say(json!({"type": "resume"}))).await.unwrap();
    let frames = rest(&mut socket).await;
    assert_eq!(frames.len(), 2);
    assert_eq!(
        (&frames[0]["event"]["type"], &frames[0]["position"]),
        (&json!("sandbox.destroyed"), &json!(last))
    );
}

#[tokio::test]
async fn a_ticket_opens_a_replay_once() {
    let world = World::start().await;
    let sandbox = gone(&world).await;
    let ticket = world.post("/tickets", json!({}), 201).await["ticket"].as_str().unwrap().to_owned();
    let url = world.url(&format!("/sandboxes/{sandbox}/replay?speed=max")).replacen("http", "ws", 1);
    let request = || {
        let mut request = url.clone().into_client_request().unwrap();
        let offer = format!("stacyvm.v1, ticket.{ticket}").parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", offer);
        request
    };
    let (mut socket, response) = connect_async(request()).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "stacyvm.v1");
    assert_eq!(rest(&mut socket).await.last().unwrap()["type"], "end");
    match connect_async(request()).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), 401),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_viewer_that_stops_reading_is_closed_and_goes_on_from_its_cursor() {
    let world = World::with(|config| config.slow_reader_limit = Duration::from_millis(300), true).await;
    let sandbox = world.sandbox().await;
    for _ in 0..40 {
        world.exec(&sandbox, "flood", 200).await;
    }
    let mut slow = dial(&world, &sandbox, "?speed=max", RED, None).await.unwrap();
    // It begins to read only now: what was on its way, and then the close.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut seen = Vec::new();
    let close = loop {
        match slow.next().await.unwrap().unwrap() {
            Message::Text(text) => seen.push(serde_json::from_str::<Value>(&text).unwrap()),
            Message::Close(close) => break close.unwrap(),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    };
    assert_eq!(u16::from(close.code), 1013);
    let cursor = serde_json::from_str::<Value>(&close.reason).unwrap()["position"].as_u64().unwrap();
    assert_eq!(seen.last().unwrap()["position"], cursor);
    let from = format!("?speed=max&from={cursor}");
    let resumed = rest(&mut dial(&world, &sandbox, &from, RED, None).await.unwrap()).await;
    let whole = rest(&mut dial(&world, &sandbox, "?speed=max", RED, None).await.unwrap()).await;
    // The newest event comes again, the frame that begins is another.
    seen.retain(|frame| frame["position"] != cursor);
    seen.extend_from_slice(&resumed[1..]);
    assert!(seen == whole, "{} {}", seen.len(), whole.len());
}

#[tokio::test]
async fn a_replay_ends_with_its_cursor_when_the_gateway_stops() {
    let world = World::start().await;
    let sandbox = gone(&world).await;
    let first = log_of(&world, &sandbox).await[0].position.0;
    let mut paused = dial(&world, &sandbox, "?speed=0.1", RED, None).await.unwrap();
    paused.send(Message::text(json!({"type": "pause"}).to_string())).await.unwrap();
    paused.send(Message::text(json!({"type": "seek", "position": first}).to_string())).await.unwrap();
    while frame(&mut paused).await.unwrap()["type"] != "seeked" {}
    world.stop.cancel();
    loop {
        if let Message::Close(close) = paused.next().await.unwrap().unwrap() {
            let close = close.unwrap();
            assert_eq!(u16::from(close.code), 1012);
            assert!(serde_json::from_str::<Value>(&close.reason).unwrap()["position"].is_u64(), "{close:?}");
            break;
        }
    }
}

#[tokio::test]
async fn a_replay_that_is_told_nonsense_says_so() {
    let world = World::start().await;
    let sandbox = gone(&world).await;
    let mut socket = dial(&world, &sandbox, "?speed=0.1", RED, None).await.unwrap();
    socket.send(Message::text("nonsense")).await.unwrap();
    let mut told = None;
    while let Some(Ok(message)) = socket.next().await {
        match message {
            Message::Text(text) => told = Some(serde_json::from_str::<Value>(&text).unwrap()),
            Message::Close(close) => assert_eq!(u16::from(close.unwrap().code), 1008),
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    assert_eq!(told.unwrap()["code"], "BAD_REQUEST");
}
