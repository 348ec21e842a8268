//! Every operation of the document with every kind of credential: what is not in the table here fails, so that no route goes in
//! without somebody having said who may use it.

use std::collections::{BTreeMap, BTreeSet};

use api_gateway::{ApiKey, Role};
use reqwest::Method;
use serde_json::{Value, json};

use super::feed::dial;
use super::world::{BLUE, OPERATOR, RED, World, key};

const READER: &str = "reader-secret";
const ADMIN: &str = "admin-of-red-secret";

/// Who may, and what it is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    /// Anybody's, without a key.
    Open,
    /// Everybody's own, whatever else there is.
    Read,
    /// The same, and it changes something.
    Change,
    /// One thing of a tenant.
    ReadOne,
    /// The same, and it changes something.
    ChangeOne,
    /// The same, and a viewer link is as good as a key.
    Watch,
    /// The sums of all tenants.
    Deployment,
    /// The machine.
    Host,
}

#[rustfmt::skip]
const TABLE: &[(&str, &str, Is)] = &[
    ("GET", "/health", Is::Open),
    ("GET", "/live", Is::Open),
    ("GET", "/ready", Is::Open),
    ("GET", "/metrics/prometheus", Is::Deployment),
    ("GET", "/system/stats", Is::Host),

    ("GET", "/audit", Is::Read),
    ("GET", "/audit/checkpoints", Is::Read),
    ("GET", "/audit/export", Is::Read),
    ("GET", "/audit/verify", Is::Read),
    ("GET", "/diagnostics", Is::Read),
    ("GET", "/events", Is::Read),
    ("GET", "/events/ws", Is::Read),
    ("GET", "/metrics", Is::Read),
    ("GET", "/pool/status", Is::Read),
    ("GET", "/providers", Is::Read),
    ("POST", "/providers/test", Is::Read),
    ("GET", "/providers/{name}", Is::Read),
    ("GET", "/quotas", Is::Read),
    ("GET", "/quotas/summary", Is::Read),
    ("GET", "/quotas/{owner}", Is::Read),
    ("GET", "/quotas/{owner}/usage", Is::Read),
    ("GET", "/sandboxes", Is::Read),
    ("GET", "/schedules", Is::Read),
    ("GET", "/jobs", Is::Read),
    ("POST", "/sandboxes/admission", Is::Read),
    ("GET", "/snapshots", Is::Read),
    ("GET", "/templates", Is::Read),
    ("POST", "/tickets", Is::Read),
    ("GET", "/webhooks", Is::Read),

    ("POST", "/sandboxes", Is::Change),
    ("DELETE", "/sandboxes", Is::Change),
    ("POST", "/jobs", Is::Change),
    ("POST", "/jobs/batch", Is::Change),
    ("POST", "/schedules", Is::Change),
    ("POST", "/templates", Is::Change),
    ("PUT", "/templates/{name}", Is::Change),
    ("POST", "/webhooks", Is::Change),

    ("GET", "/execs/{id}", Is::Watch),
    ("GET", "/execs/{id}/attach", Is::Watch),
    ("GET", "/execs/{id}/output", Is::Watch),
    ("GET", "/execs/{id}/recording", Is::Watch),

    ("GET", "/execs/{id}/stream", Is::ReadOne),
    ("GET", "/execs/{id}/viewers", Is::ReadOne),
    ("GET", "/jobs/{id}", Is::ReadOne),
    ("GET", "/jobs/{id}/artifacts", Is::ReadOne),
    ("GET", "/jobs/{id}/artifacts/{path}", Is::ReadOne),
    ("GET", "/jobs/{id}/attempts", Is::ReadOne),
    ("GET", "/jobs/{id}/output", Is::ReadOne),
    ("GET", "/jobs/{id}/timeline", Is::ReadOne),
    ("GET", "/sandboxes/{id}", Is::ReadOne),
    ("GET", "/sandboxes/{id}/execs", Is::ReadOne),
    ("GET", "/sandboxes/{id}/files", Is::ReadOne),
    ("GET", "/sandboxes/{id}/files/glob", Is::ReadOne),
    ("GET", "/sandboxes/{id}/files/list", Is::ReadOne),
    ("GET", "/sandboxes/{id}/files/stat", Is::ReadOne),
    ("GET", "/sandboxes/{id}/logs", Is::ReadOne),
    ("GET", "/sandboxes/{id}/replay", Is::ReadOne),
    ("GET", "/sandboxes/{id}/stats", Is::ReadOne),
    ("GET", "/sandboxes/{id}/timeline", Is::ReadOne),
    ("GET", "/schedules/{id}", Is::ReadOne),
    ("GET", "/templates/{name}", Is::ReadOne),
    ("GET", "/webhooks/{id}", Is::ReadOne),

    ("POST", "/jobs/{id}/cancel", Is::ChangeOne),
    ("POST", "/jobs/{id}/retry", Is::ChangeOne),
    ("POST", "/execs/{id}/resize", Is::ChangeOne),
    ("POST", "/execs/{id}/signal", Is::ChangeOne),
    ("POST", "/execs/{id}/stdin", Is::ChangeOne),
    ("POST", "/execs/{id}/viewers", Is::ChangeOne),
    ("DELETE", "/execs/{id}/viewers/{viewer}", Is::ChangeOne),
    ("DELETE", "/execs/{id}", Is::ChangeOne),
    ("POST", "/sandboxes/{id}/exec", Is::ChangeOne),
    ("GET", "/sandboxes/{id}/exec/ws", Is::ChangeOne),
    ("POST", "/sandboxes/{id}/extend", Is::ChangeOne),
    ("PUT", "/sandboxes/{id}/files", Is::ChangeOne),
    ("POST", "/sandboxes/{id}/files", Is::ChangeOne),
    ("DELETE", "/sandboxes/{id}/files", Is::ChangeOne),
    ("POST", "/sandboxes/{id}/files/chmod", Is::ChangeOne),
    ("POST", "/sandboxes/{id}/files/move", Is::ChangeOne),
    ("PUT", "/schedules/{id}", Is::ChangeOne),
    ("POST", "/schedules/{id}/pause", Is::ChangeOne),
    ("POST", "/schedules/{id}/resume", Is::ChangeOne),
    ("POST", "/schedules/{id}/trigger", Is::ChangeOne),
    ("DELETE", "/schedules/{id}", Is::ChangeOne),
    ("POST", "/templates/{name}/spawn", Is::ChangeOne),
    ("DELETE", "/templates/{name}", Is::ChangeOne),
    ("PUT", "/webhooks/{id}", Is::ChangeOne),
    ("POST", "/webhooks/{id}/ping", Is::ChangeOne),
    ("POST", "/webhooks/{id}/redeliver", Is::ChangeOne),
    ("DELETE", "/webhooks/{id}", Is::ChangeOne),
    ("DELETE", "/sandboxes/{id}", Is::ChangeOne),
    ("POST", "/sandboxes/{id}/erase", Is::ChangeOne),
];

/// Nobody has any of these: whoever is let in finds nothing.
const EMPTY: &str = "/quotas/{owner}";

/// Whoever is let in waits for a service that does not run here.
const UNANSWERED: &str = "/webhooks/{id}/ping";

/// What tenant red has.
struct Things {
    sandbox: String,
    exec: String,
    webhook: String,
    schedule: String,
    job: String,
    viewer: String,
    token: String,
}

impl Things {
    async fn make(world: &World, objects: &tempfile::TempDir) -> Self {
        let store = super::artifacts::store(objects.path());
        let job = super::artifacts::job(world, &store, "red", &[("out/a", b"x")]).await.to_string();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let sandbox = world.sandbox().await;
        let exec = text(&world.exec(&sandbox, "hello", 200).await["exec_id"]);
        world.post(&format!("/sandboxes/{sandbox}/files"), json!({"path": "/a", "content": "x"}), 200).await;
        world.post("/templates", json!({"name": "t", "image": "alpine"}), 201).await;
        let webhook = world.post("/webhooks", json!({"url": "https://hooks.example.com/"}), 201).await;
        let schedule = json!({"name": "t", "cron": "@daily", "job": {"image": "alpine", "command": "true"}});
        let schedule = text(&world.post("/schedules", schedule, 201).await["id"]);
        let link = world.post(&format!("/execs/{exec}/viewers"), json!({}), 201).await;
        let (viewer, token) = (text(&link["id"]), text(&link["token"]));
        Self { sandbox, exec, webhook: text(&webhook["id"]), schedule, job, viewer, token }
    }

    /// The path with the names of what red has.
    fn fill(&self, path: &str) -> String {
        let id = match path.split('/').nth(1) {
            Some("execs") => &self.exec,
            Some("webhooks") => &self.webhook,
            Some("schedules") => &self.schedule,
            Some("jobs") => &self.job,
            _ => &self.sandbox,
        };
        let name = if path.starts_with("/providers") { "docker" } else { "t" };
        let filled = path.replace("{id}", id).replace("{viewer}", &self.viewer).replace("{path}", "out/a");
        let filled = filled.replace("{name}", name).replace("{owner}", "ada");
        assert!(!filled.contains('{'), "{path} has a parameter that this test does not know");
        filled
    }
}

/// What makes a request a good one, as far as it gets to be looked at.
fn query(path: &str) -> &'static str {
    match path {
        "/events" | "/events/ws" => "?after=0&follow=false",
        _ if path.ends_with("/glob") => "?pattern=/a",
        _ if path.contains("/files") => "?path=/a",
        _ => "",
    }
}

fn fields() -> Value {
    json!({
        "command": "hello", "ttl": "5m", "path": "/a", "old_path": "/a", "new_path": "/b", "mode": "644", "signal": 9,
        "content": "x", "name": "t", "url": "https://hooks.example.com/", "from": 1, "rows": 24, "cols": 80
    })
}

struct Route {
    method: Method,
    path: &'static str,
    is: Is,
    websocket: bool,
}

/// The operations of the document, as the table has them: those that end things last.
fn routes() -> Vec<Route> {
    let document: Value = serde_json::from_str(&api_gateway::openapi_document().unwrap()).unwrap();
    let mut documented = BTreeMap::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let path = path.strip_prefix("/api/v1").unwrap().to_owned();
            let websocket = operation["responses"].get("101").is_some();
            documented.insert((method.to_uppercase(), path), websocket);
        }
    }
    let listed: BTreeSet<(String, String)> =
        TABLE.iter().map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect();
    assert_eq!(listed, documented.keys().cloned().collect(), "say in the table who may use it");
    let route = |(method, path, is): &(&str, &'static str, Is)| Route {
        method: method.parse().unwrap(),
        path,
        is: *is,
        websocket: documented[&((*method).to_owned(), (*path).to_owned())],
    };
    TABLE.iter().map(route).collect()
}

/// The status that a route answers with, and the code of an error.
async fn ask(world: &World, route: &Route, path: &str, key: Option<&str>) -> (u16, String) {
    let joint = if path.contains('?') { '&' } else { '?' };
    let path = format!("{path}{}", query(route.path).replacen('?', &joint.to_string(), 1));
    if route.websocket {
        let headers: Vec<(&str, &str)> = key.map(|key| ("x-api-key", key)).into_iter().collect();
        let status = dial(world, &path, &headers).await.err().unwrap_or(101);
        return (status, String::new());
    }
    let request = match key {
        Some(key) => world.ask_as(key, route.method.clone(), &path),
        None => world.ask_bare(route.method.clone(), &path),
    };
    let response = request.json(&fields()).send().await.unwrap();
    let mut status = response.status().as_u16();
    if status == 404 && route.path == EMPTY {
        status = 200;
    }
    let text = if status < 400 { String::new() } else { response.text().await.unwrap() };
    let code = serde_json::from_str::<Value>(&text).ok();
    (status, code.map_or_else(String::new, |body| body["code"].as_str().unwrap().to_owned()))
}

/// Whether somebody was let in: it did what it was asked for, or said what is wrong with the request.
fn is_in((status, _): &(u16, String)) -> bool {
    matches!(status, 101 | 200 | 201 | 202 | 400 | 409)
}

async fn world(objects: &tempfile::TempDir) -> World {
    World::with(
        |config| {
            config.objects = Some(super::artifacts::store(objects.path()));
            let reader =
                ApiKey { id: "key-of-reader".parse().unwrap(), role: Role::Reader, ..key("red", READER) };
            let admin = ApiKey {
                id: "key-of-admin".parse().unwrap(),
                role: Role::DeploymentAdmin,
                ..key("red", ADMIN)
            };
            config.keys.extend([reader, admin]);
        },
        true,
    )
    .await
}

#[tokio::test]
async fn each_credential_opens_what_it_is_for_and_nothing_else() {
    let objects = tempfile::tempdir().unwrap();
    let world = world(&objects).await;
    let things = Things::make(&world, &objects).await;
    for route in routes() {
        let path = things.fill(route.path);
        let named = format!("{} {} is {:?}", route.method, route.path, route.is);
        let of = async |key| ask(&world, &route, &path, key).await;
        if route.is == Is::Open {
            assert_eq!(of(None).await.0, 200, "{named}: without a key");
            continue;
        }
        assert_eq!(of(None).await.0, 401, "{named}: without a key");
        assert_eq!(of(Some("red-secre")).await.0, 401, "{named}: with part of a key");
        let linked = ask(&world, &route, &format!("{path}?viewer={}", things.token), None).await;
        match route.is {
            Is::Watch => assert!(is_in(&linked), "{named}: by a viewer link: {linked:?}"),
            Is::Open | Is::Read | Is::Change | Is::ReadOne | Is::ChangeOne | Is::Deployment | Is::Host => {
                assert_eq!(linked.0, 401, "{named}: by a viewer link")
            }
        }
        let reader = of(Some(READER)).await;
        match route.is {
            Is::Read | Is::ReadOne | Is::Watch => assert!(is_in(&reader), "{named}: read only: {reader:?}"),
            Is::Open | Is::Change | Is::ChangeOne | Is::Deployment | Is::Host => {
                assert_eq!(reader.0, 403, "{named}: read only")
            }
        }
        let (other, other_admin) = (of(Some(BLUE)).await, of(Some(OPERATOR)).await);
        match route.is {
            Is::ReadOne | Is::ChangeOne | Is::Watch => {
                assert_eq!((other.0, other_admin.0), (404, 404), "{named}: of another tenant");
            }
            Is::Deployment | Is::Host => {
                assert_eq!((other.0, is_in(&other_admin)), (403, true), "{named}: {other_admin:?}");
            }
            Is::Open | Is::Read | Is::Change => {
                assert!(is_in(&other) && is_in(&other_admin), "{named}: {other:?} {other_admin:?}")
            }
        }
        if route.path == UNANSWERED {
            continue;
        }
        let member = of(Some(RED)).await;
        match route.is {
            Is::Deployment | Is::Host => assert_eq!(member.0, 403, "{named}: a tenant's"),
            // What was there has ended already, where the one before ended it.
            Is::Open | Is::Read | Is::Change | Is::ReadOne | Is::ChangeOne | Is::Watch => {
                assert!(is_in(&member), "{named}: a tenant's: {member:?}")
            }
        }
        let admin = of(Some(ADMIN)).await;
        let ended = route.method == Method::DELETE && admin.0 == 404;
        assert!(is_in(&admin) || ended, "{named}: the admin's: {admin:?}");
    }
}

/// Whoever may only read is told so before anything is looked up: by the answer nobody can tell what there is.
#[tokio::test]
async fn a_key_that_may_only_read_learns_nothing_by_being_refused() {
    let objects = tempfile::tempdir().unwrap();
    let world = world(&objects).await;
    let things = Things::make(&world, &objects).await;
    for route in routes().into_iter().filter(|route| route.is == Is::ChangeOne) {
        let nothing = route.path.replace("{id}", "sb-01jd2x5c0pe3tt4m1q5a8z0v9k").replace("{name}", "none");
        let nothing = nothing.replace("{viewer}", "vl-none");
        let (there, absent) = (
            ask(&world, &route, &things.fill(route.path), Some(READER)).await,
            ask(&world, &route, &nothing, Some(READER)).await,
        );
        assert_eq!(there, absent, "{} {}", route.method, route.path);
        assert_eq!(there.0, 403, "{} {}", route.method, route.path);
    }
}

/// An attachment is for watching where the key is: it takes no input, whatever is asked for.
#[tokio::test]
async fn a_key_that_may_only_read_types_into_nothing() {
    use futures::{SinkExt as _, StreamExt as _};
    use tokio_tungstenite::tungstenite::Message;

    let objects = tempfile::tempdir().unwrap();
    let world = world(&objects).await;
    let sandbox = world.sandbox().await;
    let body = json!({"command": "hang", "detach": true});
    let exec = world.post(&format!("/sandboxes/{sandbox}/exec"), body, 202).await;
    let exec = exec["exec_id"].as_str().unwrap();
    let path = format!("/execs/{exec}/attach?mode=rw");
    let (mut socket, _) = dial(&world, &path, &[("x-api-key", READER)]).await.unwrap();
    // A control frame: 3, then JSON.
    let signal = b"\x03{\"type\":\"signal\",\"signal\":\"KILL\"}";
    socket.send(Message::Binary(signal.as_slice().into())).await.unwrap();
    let refused = loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(frame) if frame.windows(9).any(|word| word == b"FORBIDDEN") => break frame,
            Message::Close(close) => panic!("{close:?}"),
            Message::Binary(_)
            | Message::Text(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Frame(_) => {}
        }
    };
    assert!(String::from_utf8_lossy(&refused).contains("read-only"), "{refused:?}");
    let ticket = world.ask_as(READER, Method::POST, "/tickets").send().await.unwrap();
    let ticket: Value = ticket.json().await.unwrap();
    let ticket = format!("stacyvm.v1, ticket.{}", ticket["ticket"].as_str().unwrap());
    let converse = format!("/sandboxes/{sandbox}/exec/ws");
    let refused = dial(&world, &converse, &[("sec-websocket-protocol", &ticket)]).await.err();
    assert_eq!(refused, Some(403), "a ticket opens no more than the key that bought it");
}

/// Refusals are in the record, a flood of them as few events.
#[tokio::test]
async fn refusals_of_a_role_are_counted() {
    let objects = tempfile::tempdir().unwrap();
    let world = world(&objects).await;
    for _ in 0..100 {
        let refused = world.ask_as(READER, Method::DELETE, "/sandboxes").send().await.unwrap();
        assert_eq!(refused.status(), 403);
    }
    let found =
        super::denied::denied(&world, |found| super::denied::counted(found, "not allowed") >= 80).await;
    assert!(found.len() <= 2, "{found:#?}");
    assert_eq!((found[0].0.tenant.as_str(), found[0].1.route.as_str()), ("red", "DELETE /sandboxes"));
}
