//! Who gets in, and how far.

use reqwest::Method;
use serde_json::{Value, json};

use super::feed::dial;
use super::world::{BLUE, World, error, json as body_of};

/// What the document says of one operation.
struct Operation {
    method: Method,
    /// With its parameters filled in.
    path: String,
    keyed: bool,
    websocket: bool,
}

/// Every operation of the document.
fn operations(sandbox: &str, exec: &str) -> Vec<Operation> {
    let document: Value = serde_json::from_str(&api_gateway::openapi_document().unwrap()).unwrap();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let id = if path.contains("/execs/{id}") { exec } else { sandbox };
        let path = path.strip_prefix("/api/v1").unwrap().replace("{id}", id).replace("{name}", "none");
        for (method, operation) in item.as_object().unwrap() {
            all.push(Operation {
                method: method.to_uppercase().parse().unwrap(),
                path: path.clone(),
                keyed: operation.get("security").is_none(),
                websocket: operation["responses"].get("101").is_some(),
            });
        }
    }
    assert!(all.len() > 35, "{}", all.len());
    all
}

#[tokio::test]
async fn every_route_but_the_probes_needs_a_key() {
    let world = World::start().await;
    for Operation { method, path, keyed, .. } in operations("sb-x", "ex-x") {
        for form in [path.clone(), format!("{path}/")] {
            let bare = world.ask_bare(method.clone(), &form);
            if keyed {
                assert_eq!(error(bare, 401).await, "UNAUTHORIZED", "{method} {form}");
                let wrong = world.ask_as("red-secre", method.clone(), &form);
                assert_eq!(error(wrong, 401).await, "UNAUTHORIZED", "{method} {form}");
            } else {
                body_of(bare, 200).await;
            }
        }
    }
    body_of(world.ask_bare(Method::GET, "/openapi.json"), 200).await;
}

#[tokio::test]
async fn another_tenants_sandboxes_and_execs_do_not_exist() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "hello", 200).await["exec_id"].as_str().unwrap().to_owned();
    let mut asked = 0;
    for Operation { method, path, websocket, .. } in operations(&sandbox, &exec) {
        if !path.contains("sb-") && !path.contains("ex-") {
            continue;
        }
        if websocket {
            let refused = dial(&world, &path, &[("x-api-key", BLUE)]).await.err();
            assert_eq!(refused, Some(404), "{method} {path}");
            asked += 1;
            continue;
        }
        let path = match path.rsplit_once('/') {
            Some((_, "files" | "list" | "stat")) => format!("{path}?path=/a"),
            Some((_, "glob")) => format!("{path}?pattern=/a"),
            _ => path,
        };
        let fields = json!({
            "command": "hello", "ttl": "5m", "path": "/a", "old_path": "/a", "new_path": "/b", "mode": "644", "signal": 9, "content": "x"
        });
        let request = world.ask_as(BLUE, method.clone(), &path).json(&fields);
        assert_eq!(error(request, 404).await, "NOT_FOUND", "{method} {path}");
        asked += 1;
    }
    assert!(asked > 15, "{asked}");
    let events = format!("/events?after=0&follow=false&sandbox_id={sandbox}");
    assert_eq!(error(world.ask_as(BLUE, Method::GET, &events), 404).await, "NOT_FOUND");
    let all = world.ask_as(BLUE, Method::GET, "/events?after=0&follow=false").send().await.unwrap();
    assert!(!all.text().await.unwrap().contains("data:"));
    assert_eq!(body_of(world.ask_as(BLUE, Method::GET, "/sandboxes"), 200).await, json!([]));
    assert_eq!(world.get(&format!("/sandboxes/{sandbox}")).await["state"], "running");
}

#[tokio::test]
async fn foreign_origins_are_kept_out_and_named_ones_let_in() {
    let world = World::with(
        |config| config.allowed_origins = vec!["https://console.example".parse().unwrap()],
        false,
    )
    .await;
    let ask = |origin: &str| world.ask(Method::GET, "/sandboxes").header("Origin", origin);
    assert_eq!(error(ask("https://evil.example"), 403).await, "FORBIDDEN");
    body_of(ask(&format!("http://{}", world.address)), 200).await;
    let named = ask("https://console.example").send().await.unwrap();
    assert_eq!(named.headers()["access-control-allow-origin"], "https://console.example");
    let preflight = world
        .ask_bare(Method::OPTIONS, "/sandboxes")
        .header("Origin", "https://evil.example")
        .header("Access-Control-Request-Method", "POST");
    let preflight = preflight.send().await.unwrap();
    assert!(!preflight.headers().contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn without_keys_only_a_loopback_name_is_answered() {
    let world = World::with(|config| config.keys.clear(), false).await;
    body_of(world.ask_bare(Method::GET, "/sandboxes"), 200).await;
    let rebound = world.ask_bare(Method::GET, "/sandboxes").header("Host", "evil.example");
    assert_eq!(error(rebound, 403).await, "FORBIDDEN");
}

#[tokio::test]
async fn what_is_no_route_is_a_flat_error() {
    let world = World::with(|_| {}, false).await;
    for (method, path, status) in [
        (Method::GET, "/no/such/route", 404),
        (Method::GET, "", 404),
        (Method::PATCH, "/sandboxes", 405),
        (Method::POST, "/health", 405),
        (Method::GET, "/sandboxes/sb-*", 404),
        (Method::GET, "/sandboxes/a%20b", 404),
        (Method::GET, "/sandboxes/%FF", 404),
        (Method::GET, "/execs/ex-1/output?offset=x", 404),
        (Method::GET, "/templates/..%2F..", 404),
    ] {
        error(world.ask(method, path), status).await;
    }
}
