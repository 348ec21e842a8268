//! Execs: at once, as a stream, and by their id.

use events::Position;
use record::EventFilter;
use reqwest::Method;
use serde_json::{Value, json};

use super::world::{World, error, json as body_of};

async fn stream(request: reqwest::RequestBuilder) -> Vec<Value> {
    let response = request.send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.headers()["content-type"].to_str().unwrap()),
        (200, "application/x-ndjson")
    );
    let text = response.text().await.unwrap();
    text.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_sync_exec_gives_both_streams_and_the_exit_code() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let result = world.exec(&sandbox, "hello", 200).await;
    let exec = result["exec_id"].as_str().unwrap();
    assert_eq!(
        result,
        json!({
            "exec_id": exec, "exit_code": 3, "stdout": "hello\n", "stderr": "oops\n", "duration": "1.5ms"
        })
    );
    let record = world.get(&format!("/execs/{exec}")).await;
    assert_eq!(
        (&record["state"], &record["exit_code"], &record["sandbox_id"]),
        (&json!("exited"), &json!(3), &json!(sandbox))
    );
}

#[tokio::test]
async fn endings_that_are_no_exit_are_errors_with_the_execs_id() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    for (command, status, code) in
        [("fail", 400, "BAD_REQUEST"), ("late", 408, "TIMEOUT"), ("vanish", 409, "CONFLICT")]
    {
        let request =
            world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&json!({"command": command}));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{command}");
        let exec = response.headers()["x-exec-id"].to_str().unwrap().to_owned();
        assert_eq!(response.json::<Value>().await.unwrap()["code"], code);
        assert_ne!(world.get(&format!("/execs/{exec}")).await["state"], "running");
    }
}

#[tokio::test]
async fn more_output_than_a_reply_holds_is_read_by_id() {
    let world = World::with(|config| config.execs.max_sync_output_bytes = 100_000, true).await;
    let sandbox = world.sandbox().await;
    let request =
        world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&json!({"command": "flood"}));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 413);
    let exec = response.headers()["x-exec-id"].to_str().unwrap().to_owned();
    for (query, length) in [
        ("", 400_000),
        ("?offset=399999", 1),
        ("?offset=400000", 0),
        ("?stream=stderr", 0),
        ("?follow=true&offset=1", 399_999),
    ] {
        let output = world.ask(Method::GET, &format!("/execs/{exec}/output{query}")).send().await.unwrap();
        assert_eq!(output.bytes().await.unwrap().len(), length, "{query}");
    }
    assert_eq!(
        error(world.ask(Method::GET, &format!("/execs/{exec}/output?stream=other")), 400).await,
        "BAD_REQUEST"
    );
}

#[tokio::test]
async fn a_stream_tells_id_output_and_end_and_keeps_characters_whole() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let body = json!({"command": "split", "stream": true});
    let records =
        stream(world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec?records=all")).json(&body)).await;
    let exec = records[0]["exec_id"].as_str().unwrap();
    assert_eq!(records[0].as_object().unwrap().len(), 1);
    assert_eq!(records[1], json!({"stream": "stdout", "data": "a", "offset": 0, "next_offset": 1}));
    assert_eq!(
        records[2],
        json!({
            "stream": "stdout", "data": "\u{1f600}b\u{fffd}", "data_b64": "8J+YgGL/", "offset": 1, "next_offset": 7
        })
    );
    let end = &records[3];
    assert_eq!(
        (end.get("stream"), &end["outcome"], &end["exit_code"], &end["exec_id"]),
        (None, &json!("exited"), &json!(0), &json!(exec))
    );
    assert_eq!((&end["stdout_bytes"], &end["stderr_bytes"], records.len()), (&json!(7), &json!(0), 4));

    let rest = stream(world.ask(Method::GET, &format!("/execs/{exec}/stream?stdout_offset=5"))).await;
    assert_eq!((&rest[1]["data"], &rest[1]["offset"], rest.len()), (&json!("b\u{fffd}"), &json!(5), 3));
    let end = stream(world.ask(Method::GET, &format!("/execs/{exec}/stream?stdout_offset=7"))).await;
    assert_eq!((&end[1]["exit_code"], end.len()), (&json!(0), 2));
}

#[tokio::test]
async fn late_failures_are_told_inside_the_stream() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    for (command, outcome) in [("fail", "failed"), ("vanish", "outcome_unknown"), ("late", "timed_out")] {
        let body = json!({"command": command, "stream": true});
        let records =
            stream(world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec?records=all")).json(&body))
                .await;
        let end = records.last().unwrap();
        assert_eq!(end["outcome"], outcome);
        assert_eq!(end.get("error").is_some(), command != "late", "{end}");
    }
}

/// What a client sees that takes every line for output, as those of the SDKs do.
async fn chunks(request: reqwest::RequestBuilder) -> Vec<(String, String)> {
    let chunk = |record: Value| {
        let text = |key: &str| record[key].as_str().unwrap_or("").to_owned();
        (text("stream"), text("data"))
    };
    stream(request).await.into_iter().map(chunk).collect()
}

#[tokio::test]
async fn clients_that_ask_for_no_more_are_told_nothing_but_output() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let path = format!("/sandboxes/{sandbox}/exec");
    let request =
        |command: &str| world.ask(Method::POST, &path).json(&json!({"command": command, "stream": true}));
    let piece = |stream: &str, data: &str| (stream.to_owned(), data.to_owned());
    assert_eq!(chunks(request("hello")).await, [piece("stdout", "hello\n"), piece("stderr", "oops\n")]);
    assert_eq!(chunks(request("true")).await, []);
    for (command, code) in [("fail", "BAD_REQUEST"), ("vanish", "CONFLICT"), ("late", "TIMEOUT")] {
        let records = stream(request(command)).await;
        let last = records.last().unwrap();
        assert!(records.iter().all(|record| record["data"].as_str().is_some_and(|data| !data.is_empty())));
        assert_eq!((&last["stream"], &last["error"]["code"]), (&json!("stderr"), &json!(code)), "{command}");
        assert!(last["data"].as_str().unwrap().starts_with("stacyvm: "), "{last}");
    }

    let answer = request("hello").send().await.unwrap();
    let exec = answer.headers()["x-exec-id"].to_str().unwrap().to_owned();
    answer.bytes().await.unwrap();
    assert_eq!(world.get(&format!("/execs/{exec}")).await["exit_code"], 3);
    let again = chunks(world.ask(Method::GET, &format!("/execs/{exec}/stream?records=output"))).await;
    assert_eq!(again, [piece("stdout", "hello\n"), piece("stderr", "oops\n")]);
    for wrong in ["", "none", "ALL", "all,output"] {
        let request = world.ask(Method::POST, &format!("{path}?records={wrong}"));
        assert_eq!(
            error(request.json(&json!({"command": "true", "stream": true})), 400).await,
            "BAD_REQUEST"
        );
    }
}

#[tokio::test]
async fn silence_is_broken_by_blank_lines() {
    let world = World::with(|config| config.heartbeat = std::time::Duration::from_millis(50), true).await;
    let sandbox = world.sandbox().await;
    let body = json!({"command": "hang", "stream": true});
    let request = world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&body);
    let mut response = request.send().await.unwrap();
    let mut text = String::new();
    while !text.ends_with("\n\n\n") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.contains("\"up\\n\""), "{text}");
}

#[tokio::test]
async fn an_idempotency_key_runs_once_and_gives_the_first_result_again() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = |body: Value| {
        world
            .ask(Method::POST, &format!("/sandboxes/{sandbox}/exec"))
            .header("Idempotency-Key", "k")
            .json(&body)
    };
    let all =
        futures::future::join_all((0..5).map(|_| body_of(exec(json!({"command": "hello"})), 200))).await;
    assert!(all.iter().all(|result| *result == all[0]), "{all:?}");
    assert_eq!(body_of(exec(json!({"command": "hello"})), 200).await, all[0]);
    assert_eq!(error(exec(json!({"command": "true"})), 409).await, "CONFLICT");
    let started =
        world.ask(Method::GET, "/events?after=0&follow=false&types=exec.started").send().await.unwrap();
    assert_eq!(started.text().await.unwrap().matches("data:").count(), 1);
}

#[tokio::test]
async fn a_signal_goes_to_what_runs_and_not_to_what_has_ended() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let body = json!({"command": "hang", "stream": true});
    let request = world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&body);
    let mut response = request.send().await.unwrap();
    let exec = response.headers()["x-exec-id"].to_str().unwrap().to_owned();
    let mut text = String::new();
    while !text.contains("up") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    let signalled = world.post(&format!("/execs/{exec}/signal"), json!({"signal": "SIGINT"}), 200).await;
    assert_eq!(signalled, json!({"status": "signalled"}));
    let ended = world.exec(&sandbox, "hello", 200).await["exec_id"].as_str().unwrap().to_owned();
    let late = world.ask(Method::POST, &format!("/execs/{ended}/signal")).json(&json!({"signal": 9}));
    assert_eq!(error(late, 409).await, "CONFLICT");
}

/// The trace of a request is in all that follows from it: in what the gateway writes, and by way of a command or the link in what
/// the executor does.
#[tokio::test]
async fn a_trace_is_carried_into_every_event_of_a_request() {
    let world = World::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = |path: &str, id: &'static str, trace: &'static str, body: Value| {
        world.ask(Method::POST, path).header("x-request-id", id).header("traceparent", trace).json(&body)
    };
    let sandbox = body_of(traced("/sandboxes", "spawn", trace, json!({})), 201).await;
    let sandbox = sandbox["id"].as_str().unwrap();
    let path = format!("/sandboxes/{sandbox}/exec");
    body_of(traced(&path, "exec", trace, json!({"command": "hello"})), 200).await;
    body_of(traced(&path, "no-trace", "nonsense", json!({"command": "hello"})), 200).await;
    let filter = EventFilter { sandbox: Some(sandbox.parse().unwrap()), ..EventFilter::default() };
    let frames = world.store.read(&filter, Position::ZERO, 100).await.unwrap();
    let mut told = Vec::new();
    for event in frames.iter().map(|frame| frame.decode().unwrap()) {
        let (kind, request) = (event.data.type_name(), event.request_id.unwrap());
        let expected = (request.as_str() != "no-trace").then_some(trace);
        assert_eq!(event.traceparent.as_deref(), expected, "{kind} of {request:?}");
        told.push((kind, request.as_str().to_owned()));
    }
    for fact in [
        ("sandbox.requested", "spawn"),
        ("sandbox.running", "spawn"),
        ("exec.exited", "exec"),
        ("exec.exited", "no-trace"),
    ] {
        assert!(told.iter().any(|(kind, request)| (*kind, request.as_str()) == fact), "{fact:?}: {told:?}");
    }
}
