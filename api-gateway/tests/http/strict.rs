//! What a request says and nothing reads.

use futures::{SinkExt, StreamExt};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::world::{RED, World};

/// Status, `X-Unknown-Fields`, `Preference-Applied` and the body.
async fn answer(request: RequestBuilder) -> (u16, String, String, Value) {
    let response = request.send().await.unwrap();
    let header =
        |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let (unknown, applied) = (header("x-unknown-fields"), header("preference-applied"));
    let status = response.status().as_u16();
    (status, unknown, applied, response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_misspelt_timeout_is_named_to_the_lenient_and_refused_to_the_strict() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = || {
        let body = json!({"command": "hello", "timout": "1s", "env": {"ANY": "name"}, "tty": {"rows": 1, "cols": 2, "xs": 3}});
        world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&body)
    };
    let (status, unknown, applied, body) = answer(exec().header("prefer", "respond-async")).await;
    assert_eq!((status, unknown.as_str(), applied.as_str()), (400, "timout, tty.xs", ""), "{body}");
    let lenient = world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec"));
    let (status, unknown, _, body) = answer(lenient.json(&json!({"command": "hello", "timout": "1s"}))).await;
    assert_eq!((status, unknown.as_str(), &body["exit_code"]), (200, "timout", &json!(3)));

    let before = world.get(&format!("/sandboxes/{sandbox}/execs")).await;
    let (status, unknown, applied, body) = answer(exec().header("prefer", "handling=strict")).await;
    assert_eq!((status, unknown.as_str(), applied.as_str()), (400, "timout, tty.xs", "handling=strict"));
    assert_eq!(
        body["message"],
        "unknown field \"timout\" (did you mean \"timeout\"?), unknown field \"tty.xs\""
    );
    assert_eq!(world.get(&format!("/sandboxes/{sandbox}/execs")).await, before, "nothing ran");

    let good =
        world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&json!({"command": "hello"}));
    let (status, unknown, applied, _) = answer(good.header("prefer", "handling=strict")).await;
    assert_eq!((status, unknown.as_str(), applied.as_str()), (200, "", "handling=strict"));
}

/// Of each route that reads a body, one field that it does not; of each other, a parameter, and a body.
#[tokio::test]
async fn every_route_refuses_the_strict_what_it_does_not_read() {
    // Whoever may do all there is: what a role does not have is refused before anything is read.
    let world = World::with(
        |config| config.keys.iter_mut().for_each(|key| key.role = api_gateway::Role::DeploymentAdmin),
        true,
    )
    .await;
    let sandbox = world.sandbox().await;
    let document: Value =
        world.ask_bare(Method::GET, "/openapi.json").send().await.unwrap().json().await.unwrap();
    let mut tried = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let path = path.strip_prefix("/api/v1").unwrap();
            let id = match path.split('/').nth(1) {
                Some("sandboxes") => sandbox.clone(),
                Some("execs") => "ex-00000000000000000000000000".to_owned(),
                Some("webhooks") => "wh-00000000000000000000000000".to_owned(),
                Some("jobs") => "job-00000000000000000000000000".to_owned(),
                Some("schedules") => "sched-00000000000000000000000000".to_owned(),
                _ => "t".to_owned(),
            };
            let path = path.replace("{id}", &id).replace("{name}", &id);
            let method: Method = method.to_uppercase().parse().unwrap();
            let ask = |path: &str| world.ask(method.clone(), path).header("prefer", "handling=strict");

            let (status, unknown, _, body) = answer(ask(&format!("{path}?qqqqq=1"))).await;
            assert_eq!((status, unknown.as_str()), (400, "qqqqq"), "{method} {path} {body}");
            let types = operation["requestBody"]["content"].as_object();
            let reads_json = types.is_some_and(|types| types.contains_key("application/json"));
            if reads_json || types.is_none() {
                let (status, unknown, _, body) = answer(ask(&path).json(&json!({"qqqqq": 1}))).await;
                let named = if reads_json { "qqqqq" } else { "body" };
                assert_eq!((status, unknown.as_str()), (400, named), "{method} {path} {body}");
            }
            tried += 1;
        }
    }
    assert!(tried > 60, "{tried}");
    assert_eq!(world.get(&format!("/sandboxes/{sandbox}")).await["state"], "running", "nothing happened");
}

#[tokio::test]
async fn the_first_frame_is_read_as_strictly() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    for (prefer, last) in [("handling=lenient", "done"), ("handling=strict", "error")] {
        let url = world.url(&format!("/sandboxes/{sandbox}/exec/ws")).replacen("http", "ws", 1);
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("x-api-key", RED.parse().unwrap());
        request.headers_mut().insert("prefer", prefer.parse().unwrap());
        let (mut socket, response) = connect_async(request).await.unwrap();
        assert_eq!(response.headers()["preference-applied"], prefer);
        socket.send(Message::text(r#"{"type":"exec","command":"hello","timout":"1s"}"#)).await.unwrap();
        let mut frames: Vec<Value> = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            if let Message::Text(text) = message {
                frames.push(serde_json::from_str(&text).unwrap());
            }
        }
        let end = frames.pop().unwrap();
        assert_eq!(end["type"], last, "{end}");
        if last == "error" {
            assert_eq!(end["message"], "unknown field of the frame \"timout\" (did you mean \"timeout\"?)");
            assert_eq!(frames, [] as [Value; 0]);
        }
    }
}

#[tokio::test]
async fn a_problem_keeps_the_headers_of_the_error() {
    let world = World::start().await;
    let request = world.ask(Method::DELETE, "/sandboxes?al=true").header("prefer", "handling=strict");
    let response = request.header("accept", "application/problem+json").send().await.unwrap();
    assert_eq!(response.headers()["x-unknown-fields"], "al");
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["detail"], "unknown query parameter \"al\"");
}

#[tokio::test]
async fn a_refusal_names_the_thing_and_says_the_same_of_what_is_anothers() {
    use super::world::BLUE;
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "hello", 200).await;
    let exec = exec["exec_id"].as_str().map(str::to_owned);
    let message = |key: &'static str, method: Method, path: String| {
        let request = world.ask_as(key, method, &path);
        async move {
            let (status, _, _, body) = answer(request).await;
            assert_eq!(status, 404, "{path} {body}");
            body["message"].as_str().unwrap().to_owned()
        }
    };
    // Of what never was and of what is another's.
    for id in ["sb-00000000000000000000000000", sandbox.as_str(), "nonsense"] {
        for path in ["", "/stats", "/files/list?path=/"] {
            let said = message(BLUE, Method::GET, format!("/sandboxes/{id}{path}")).await;
            assert_eq!(said, format!("sandbox \"{id}\" does not exist"));
        }
    }
    for id in ["ex-00000000000000000000000000"].into_iter().chain(exec.as_deref()) {
        let said = message(BLUE, Method::GET, format!("/execs/{id}")).await;
        assert_eq!(said, format!("exec \"{id}\" does not exist"));
    }
    assert_eq!(
        message(RED, Method::GET, "/templates/x%22y".to_owned()).await,
        "template \"x\\\"y\" does not exist"
    );
    assert_eq!(
        message(RED, Method::GET, "/webhooks/wh-nothing".to_owned()).await,
        "webhook \"wh-nothing\" does not exist"
    );
    let long = "x".repeat(1000);
    assert!(message(RED, Method::GET, format!("/templates/{long}")).await.len() < 200);

    world.delete(&format!("/sandboxes/{sandbox}")).await;
    let said = message(RED, Method::GET, format!("/sandboxes/{sandbox}")).await;
    let (start, end) = said.split_once(" ago, ").unwrap();
    assert!(start.starts_with(&format!("sandbox {sandbox} was destroyed ")), "{said}");
    assert_eq!(end, "reason user");
    let said = message(BLUE, Method::GET, format!("/sandboxes/{sandbox}")).await;
    assert_eq!(said, format!("sandbox \"{sandbox}\" does not exist"));
}
