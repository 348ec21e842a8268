//! What one tenant can learn of another's, and do to it, with its own key, with what it guesses, and with credentials that it
//! bends.

use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::api::Api;
use crate::support::keys;
use crate::support::serve::Serve;
use crate::support::viewer::{Viewer, detach};

const RED: &str = "key-of-the-tenant-that-is-attacked";
const BLUE: &str = "key-of-the-tenant-that-attacks";
/// How long an answer may take, also that a stream has ended.
const PATIENCE: Duration = Duration::from_secs(60);
const HOOK: &str = "https://hooks.example.com/there";

fn config(keys: &[(&str, &str)]) -> String {
    let keys: Vec<_> = keys.iter().map(|(tenant, key)| (*tenant, *key, false)).collect();
    keys::config(&keys)
}

fn client(serve: &Serve, key: &'static str) -> Api {
    let headers = keys::headers(key);
    let http =
        reqwest::Client::builder().no_proxy().default_headers(headers).timeout(PATIENCE).build().unwrap();
    Api { base: serve.api.base.clone(), http }
}

/// What a tenant has, by its names; or names of the same kinds that nobody has.
struct Things {
    tenant: String,
    owner: String,
    sandbox: String,
    exec: String,
    viewer: String,
    template: String,
    webhook: String,
    schedule: String,
    job: String,
}

impl Things {
    async fn of(api: &Api, tenant: &str) -> Self {
        let (owner, template) = (format!("owner-of-{tenant}"), format!("template-of-{tenant}"));
        let sandbox = api.spawn(json!({"image": "alpine:latest", "owner_id": owner})).await;
        let exec = detach(api, &sandbox, json!({"command": "echo secret-of-one; exec sleep 600"})).await;
        let (status, link) = api.post(&format!("/execs/{exec}/viewers"), json!({})).await;
        assert_eq!(status, 201, "{link}");
        let (status, made) =
            api.post("/templates", json!({"name": template, "image": "alpine:latest"})).await;
        assert_eq!(status, 201, "{made}");
        let (status, webhook) = api.post("/webhooks", json!({"url": HOOK})).await;
        assert_eq!(status, 201, "{webhook}");
        let job = json!({"image": "alpine:latest", "command": "true"});
        let schedule = json!({"name": format!("schedule-of-{tenant}"), "cron": "@yearly", "job": job});
        let (status, schedule) = api.post("/schedules", schedule).await;
        assert_eq!(status, 201, "{schedule}");
        let (status, job) = api
            .post("/jobs", json!({"image": "alpine:latest", "command": "sleep 600", "queue": "of-tenants"}))
            .await;
        assert_eq!(status, 202, "{job}");
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (viewer, webhook) = (text(&link["id"]), text(&webhook["id"]));
        let (schedule, job) = (text(&schedule["id"]), text(&job["id"]));
        Self { tenant: tenant.to_owned(), owner, sandbox, exec, viewer, template, webhook, schedule, job }
    }

    fn nobodys() -> Self {
        let unique = events::EventId::new().to_string();
        Self {
            tenant: "tenant-nobody".to_owned(),
            owner: "owner-of-tenant-nobody".to_owned(),
            sandbox: events::SandboxId::new().to_string(),
            exec: events::ExecId::new().to_string(),
            viewer: format!("vl-{}", unique.trim_start_matches("ev-")),
            template: "template-of-tenant-nobody".to_owned(),
            webhook: events::WebhookId::new().to_string(),
            schedule: events::ScheduleId::new().to_string(),
            job: events::JobId::new().to_string(),
        }
    }

    /// What stands in a path, or in a query, for one of them. `None`: that is nothing that tenants have.
    fn named(&self, path: &str, parameter: &str) -> Option<&str> {
        let kind = path.split('/').nth(1).unwrap();
        Some(match (kind, parameter) {
            ("sandboxes", "id") | (_, "sandbox" | "sandbox_id") => &self.sandbox,
            ("sandboxes", "before") if path.ends_with("/execs") => &self.exec,
            // A place in the order of ids, which nobody looks up.
            ("sandboxes", "before") => return None,
            ("execs", "id") | (_, "exec") => &self.exec,
            ("webhooks", "id") => &self.webhook,
            ("schedules", "id") => &self.schedule,
            ("jobs", "id") => &self.job,
            ("templates", "name") => &self.template,
            ("quotas", "owner") => &self.owner,
            ("execs", "viewer") => &self.viewer,
            (_, "tenant") => &self.tenant,
            ("providers", "name") | ("jobs", "path") => return None,
            _ => panic!("is {parameter} of {path} something that tenants have? Say so here"),
        })
    }

    /// A text without what tells these from others.
    fn hide(&self, mut text: String) -> String {
        let names = [
            (&self.owner, "<owner>"),
            (&self.template, "<template>"),
            (&self.sandbox, "<sandbox>"),
            (&self.exec, "<exec>"),
            (&self.viewer, "<viewer>"),
            (&self.webhook, "<webhook>"),
            (&self.schedule, "<schedule>"),
            (&self.job, "<job>"),
        ];
        for (name, kind) in names {
            text = text.replace(name, kind);
        }
        text.replace(&self.tenant, "<tenant>")
    }
}

/// Parameters of queries that name something that tenants have.
const NAMING: [&str; 5] = ["sandbox", "sandbox_id", "exec", "before", "tenant"];

/// What a route needs beside ids to look at them at all.
fn query_of(path: &str) -> &'static str {
    match path {
        "/events" | "/events/ws" => "follow=false",
        "/audit/export" => "format=csv",
        path if path.ends_with("/glob") => "pattern=*",
        path if path.contains("/files") => "path=/etc/hostname",
        _ => "",
    }
}

/// The same of bodies. Whoever adds a route that needs one adds it here: without it the answer is 400, which proves nothing.
fn body_of(method: &Method, path: &str) -> Value {
    match path.rsplit('/').next().unwrap() {
        "exec" => json!({"command": "true"}),
        "resize" => json!({"rows": 24, "cols": 80}),
        "signal" => json!({"signal": "TERM"}),
        "extend" => json!({"ttl": "1m"}),
        "files" => json!({"path": "/tmp/x", "content": "x"}),
        "chmod" => json!({"path": "/tmp/x", "mode": "600"}),
        "move" => json!({"old_path": "/tmp/x", "new_path": "/tmp/y"}),
        "redeliver" => json!({"from": 1}),
        "{name}" if method == Method::PUT => json!({"image": "alpine:latest"}),
        "{id}" if method == Method::PUT => json!({"url": HOOK}),
        _ => json!({}),
    }
}

/// A route, and a way to name things on it.
struct Ask<'a> {
    method: Method,
    path: &'a str,
    /// So many of the first places in the path hold what is the caller's own.
    own: usize,
    /// The parameter of the query that holds what is another's.
    query: Option<&'a str>,
    upgrade: bool,
}

impl Ask<'_> {
    /// The answer, without what tells these things from others.
    async fn answer(&self, api: &Api, own: &Things, things: &Things) -> (u16, String, String) {
        let mut path = self.path.to_owned();
        for (index, hole) in holes(self.path).into_iter().enumerate() {
            let from = if index < self.own { own } else { things };
            path = path.replace(&format!("{{{hole}}}"), from.named(self.path, hole).unwrap_or("docker"));
        }
        let mut query = query_of(self.path).to_owned();
        if let Some(name) = self.query {
            query += &format!("&{name}={}", things.named(self.path, name).unwrap());
        }
        let mut request = api.http.request(self.method.clone(), api.url(&format!("{path}?{query}")));
        if self.upgrade {
            request = request.headers(upgrade());
        } else if self.method != Method::GET {
            request = request.json(&body_of(&self.method, self.path));
        }
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let kind = answer.headers().get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
        let body = match answer.json::<Value>().await {
            Ok(mut body) => {
                for time in ["created_at", "updated_at"] {
                    body.as_object_mut().and_then(|body| body.remove(time));
                }
                body.to_string()
            }
            Err(_) if status < 400 => String::new(),
            Err(error) => panic!("{}: {error}", self.path),
        };
        (status, kind.unwrap_or_default(), things.hide(body))
    }
}

fn holes(path: &str) -> Vec<&str> {
    path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect()
}

fn upgrade() -> HeaderMap {
    [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
    .collect()
}

/// Every route that the server itself says it has, with what is another's and with what is nobody's.
async fn ids_of_others(red: &Things, blue: (&Api, &Things)) {
    let (api, own) = blue;
    let nobodys = Things::nobodys();
    let (status, document) = api.get("/openapi.json").await;
    assert_eq!(status, 200);
    let mut tried = 0;
    for (full, methods) in document["paths"].as_object().unwrap() {
        let path = full.strip_prefix("/api/v1").unwrap();
        for (method, operation) in methods.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let upgrade = operation["responses"].get("101").is_some();
            let named = |hole: &&str| red.named(path, hole).is_some();
            let count = holes(path).iter().filter(|hole| named(hole)).count();
            let by_path = (0..count).map(|own| (own, None));
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let by_query = parameters
                .filter(|parameter| parameter["in"] == "query")
                .filter_map(|parameter| NAMING.into_iter().find(|name| parameter["name"] == *name))
                .filter(|name| named(name))
                .map(|name| (count, Some(name)));
            for (own_holes, query) in by_path.chain(by_query) {
                let ask = Ask { method: method.clone(), path, own: own_holes, query, upgrade };
                let anothers = ask.answer(api, own, red).await;
                let absent = ask.answer(api, own, &nobodys).await;
                let shown = format!("{method} {path} {own_holes} {query:?}");
                assert_eq!(anothers, absent, "{shown}");
                let expected = match (path, method.as_str()) {
                    // A template of this name is the caller's own then.
                    ("/templates/{name}", "PUT") => 201,
                    ("/quotas/{owner}/usage" | "/audit" | "/audit/export", _) if query != Some("tenant") => {
                        200
                    }
                    _ => 404,
                };
                assert_eq!(anothers.0, expected, "{shown}: {}", anothers.2);
                if expected == 201 {
                    for things in [red, &nobodys] {
                        let made = api.url(&format!("/templates/{}", things.template));
                        assert!(api.http.delete(made).send().await.unwrap().status().is_success());
                    }
                }
                tried += 1;
            }
        }
    }
    assert!(tried > 50, "only {tried} ways to name what is another's: is the document read as it should be?");
    // And in bodies.
    let hook = format!("/webhooks/{}", own.webhook);
    for (method, path, body) in [
        (
            Method::POST,
            "/webhooks",
            (|it| json!({"url": HOOK, "sandbox": it.sandbox})) as fn(&Things) -> Value,
        ),
        (Method::PUT, &hook, |it| json!({"url": HOOK, "sandbox": it.sandbox})),
        (Method::POST, "/sandboxes", |it| json!({"template": it.template})),
    ] {
        let mut answers = Vec::new();
        for things in [red, &nobodys] {
            let asked = api.http.request(method.clone(), api.url(path)).json(&body(things));
            let answer = asked.send().await.unwrap();
            answers.push((answer.status().as_u16(), things.hide(answer.text().await.unwrap())));
        }
        assert_eq!(answers[0], answers[1], "{method} {path}");
        assert_eq!(answers[0].0, 404, "{method} {path}: {}", answers[0].1);
    }
}

/// The key of another's request, for what that made.
async fn idempotency_keys_of_others(red: &Api, blue: &Api, reds: &Things, blues: &Things) {
    let post = async |api: &Api, path: &str, body: Value| {
        let request = api.http.post(api.url(path)).header("Idempotency-Key", "order-17").json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let made = post(red, "/sandboxes", json!({"image": "alpine:latest"})).await;
    let same = post(blue, "/sandboxes", json!({"image": "alpine:latest"})).await;
    assert_eq!((made.0, same.0), (201, 201), "{} {}", made.1, same.1);
    assert_ne!(made.1["id"], same.1["id"]);
    // The same sandboxes still, whoever asked first.
    assert_eq!(post(red, "/sandboxes", json!({"image": "alpine:latest"})).await.1["id"], made.1["id"]);
    assert_eq!(post(blue, "/sandboxes", json!({"image": "alpine:latest"})).await.1["id"], same.1["id"]);
    let exec_in = |things: &Things| format!("/sandboxes/{}/exec", things.sandbox);
    let ran = post(red, &exec_in(reds), json!({"command": "echo red"})).await;
    assert_eq!((ran.0, &ran.1["stdout"]), (200, &json!("red\n")));
    // Another body is no conflict.
    let ran = post(blue, &exec_in(blues), json!({"command": "echo blue"})).await;
    assert_eq!((ran.0, &ran.1["stdout"]), (200, &json!("blue\n")));
    assert_eq!(post(blue, &exec_in(reds), json!({"command": "echo red"})).await.0, 404);
}

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// A WebSocket by a ticket alone.
async fn dial(api: &Api, path: &str, ticket: &str) -> Result<Socket, u16> {
    let mut request = api.url(path).replacen("http", "ws", 1).into_client_request().unwrap();
    let offered = format!("stacyvm.v1, ticket.{ticket}").parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", offered);
    match connect_async(request).await {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn ticket(api: &Api) -> String {
    let (status, answer) = api.post("/tickets", json!({})).await;
    assert_eq!(status, 201, "{answer}");
    answer["ticket"].as_str().unwrap().to_owned()
}

async fn link(api: &Api, exec: &str, ttl: &str) -> String {
    let (status, answer) = api.post(&format!("/execs/{exec}/viewers"), json!({"ttl": ttl})).await;
    assert_eq!(status, 201, "{answer}");
    answer["token"].as_str().unwrap().to_owned()
}

/// A credential in every way that it can be bent: cut, changed in one place, with the proof of another.
fn bent(good: &str, other: &str) -> Vec<String> {
    let mut bent: Vec<String> = (0..good.len()).step_by(23).map(|end| good[..end].to_owned()).collect();
    for at in (0..good.len()).step_by(31) {
        let mut bytes = good.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        bent.push(String::from_utf8(bytes).unwrap());
    }
    let (said, proof) = good.split_once('.').unwrap();
    let (other_said, other_proof) = other.split_once('.').unwrap();
    bent.extend([
        format!("{said}.{other_proof}"),
        format!("{other_said}.{proof}"),
        format!("{good}.{proof}"),
    ]);
    bent.extend([format!("{said}."), format!(".{proof}"), format!("{good}0")]);
    bent
}

/// Tickets and links that are bent, spent, expired, or meant for something else. Nobody shows a key.
async fn credentials((red, blue): (&Api, &Api), anyone: &Api, reds: &Things, blues: &Things) {
    let other = detach(red, &reds.sandbox, json!({"command": "true"})).await;
    let (good, others) = (link(red, &reds.exec, "1h").await, link(red, &other, "1h").await);
    let by = async |method: Method, path: &str, token: &str| {
        let request = anyone.http.request(method, anyone.url(path)).query(&[("viewer", token)]);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let exec = format!("/execs/{}", reds.exec);
    assert_eq!(by(Method::GET, &exec, &good).await.0, 200);
    let mut none = bent(&good, &others);
    none.push(ticket(red).await);
    let short = link(red, &reds.exec, "1ms").await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    none.push(short);
    for token in &none {
        assert_eq!(by(Method::GET, &exec, token).await.0, 401, "{token}");
    }
    // What it is not for it does not tell of either: another exec of its tenant, another's, nobody's.
    let absent = events::ExecId::new().to_string();
    let mut told = Vec::new();
    for id in [other.as_str(), blues.exec.as_str(), absent.as_str()] {
        let (status, text) = by(Method::GET, &format!("/execs/{id}"), &good).await;
        told.push((status, text.replace(id, "<exec>")));
    }
    assert!(told.iter().all(|answer| *answer == told[0] && answer.0 == 404), "{told:?}");
    for (method, path) in [
        (Method::DELETE, exec.clone()),
        (Method::POST, format!("{exec}/stdin")),
        (Method::POST, format!("{exec}/viewers")),
        (Method::GET, format!("{exec}/viewers")),
        (Method::POST, "/tickets".to_owned()),
        (Method::GET, "/sandboxes".to_owned()),
        (Method::GET, format!("/sandboxes/{}", reds.sandbox)),
    ] {
        assert_eq!(by(method.clone(), &path, &good).await.0, 401, "{method} {path}");
    }

    let attach = format!("{exec}/attach?mode=ro");
    let (first, second) = (ticket(red).await, ticket(red).await);
    for ticket in bent(&first, &second).iter().chain([&good]) {
        assert_eq!(dial(anyone, &attach, ticket).await.err(), Some(401), "{ticket}");
    }
    // As a key, in the address, and on a route that it is not for.
    let request = |path: &str| anyone.http.get(anyone.url(path)).headers(upgrade());
    for request in [
        request("/events/ws").header("X-API-Key", &first),
        request("/events/ws").bearer_auth(&first),
        request("/events/ws").query(&[("ticket", &first)]),
        request("/sandboxes").header("sec-websocket-protocol", format!("stacyvm.v1, ticket.{first}")),
        request(&exec).header("sec-websocket-protocol", format!("stacyvm.v1, ticket.{first}")),
    ] {
        assert_eq!(request.send().await.unwrap().status(), 401);
    }
    // Of two that come with it at once, one is let in; and nobody afterwards.
    let both = tokio::join!(dial(anyone, &attach, &first), dial(anyone, &attach, &first));
    let opened = usize::from(both.0.is_ok()) + usize::from(both.1.is_ok());
    assert_eq!(opened, 1, "{:?} {:?}", both.0.err(), both.1.err());
    assert_eq!(dial(anyone, "/events/ws?from=now", &first).await.err(), Some(401));
    // Of another tenant it is nothing to what is red's.
    let blues_ticket = ticket(blue).await;
    assert_eq!(dial(anyone, &attach, &blues_ticket).await.err(), Some(404));
}

#[tokio::test]
async fn what_is_anothers_is_nobodys() {
    let keys = config(&[("tenant-red", RED), ("tenant-blue", BLUE)]);
    let serve = Serve::with_config("bubblewrap", &[], &keys).await;
    let (red, blue) = (client(&serve, RED), client(&serve, BLUE));
    let (reds, blues) = tokio::join!(Things::of(&red, "tenant-red"), Things::of(&blue, "tenant-blue"));
    ids_of_others(&reds, (&blue, &blues)).await;
    idempotency_keys_of_others(&red, &blue, &reds, &blues).await;
    credentials((&red, &blue), &serve.api, &reds, &blues).await;
    // All that was tried has changed nothing.
    assert_eq!(red.get(&format!("/sandboxes/{}", reds.sandbox)).await.1["state"], "running");
    assert_eq!(red.get(&format!("/execs/{}", reds.exec)).await.1["state"], "running");
    let links = red.get(&format!("/execs/{}/viewers", reds.exec)).await.1;
    assert!(links["viewers"].as_array().unwrap().iter().any(|link| link["id"] == *reds.viewer), "{links}");
    for path in [format!("/templates/{}", reds.template), format!("/webhooks/{}", reds.webhook)] {
        assert_eq!(red.get(&path).await.0, 200, "{path}");
    }
}

/// Keys are read at the start: to take one away is to start again without it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_gone_leaves_nothing_open() {
    let blues = ("tenant-blue", BLUE);
    let mut serve = Serve::with_config("bubblewrap", &[], &config(&[("tenant-red", RED), blues])).await;
    let red = client(&serve, RED);
    let things = Things::of(&red, "tenant-red").await;
    let (link, ticket) = (link(&red, &things.exec, "1h").await, ticket(&red).await);
    let exec = format!("/execs/{}", things.exec);

    let endless = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut open = tokio::task::JoinSet::new();
    for (path, key) in [
        ("/events?from=now".to_owned(), Some(RED)),
        ("/events?from=now&format=ndjson".to_owned(), Some(RED)),
        (format!("{exec}/output?follow=true"), Some(RED)),
        (format!("{exec}/stream"), Some(RED)),
        (format!("{exec}/output?follow=true&viewer={link}"), None),
    ] {
        let mut request = endless.get(red.url(&path));
        if let Some(key) = key {
            request = request.header("X-API-Key", key);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        open.spawn(async move { drop(answer.bytes().await) });
    }
    let mut watching = Viewer::attach(&serve.api, &things.exec, &format!("viewer={link}")).await;
    open.spawn(async move { watching.rest().await });
    for path in ["/events/ws?from=now", &format!("{exec}/attach")] {
        let one = self::ticket(&red).await;
        let mut socket = dial(&serve.api, path, &one).await.unwrap();
        open.spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(open.try_join_next().is_none(), "all of them go on");

    let take_keys = |serve: &Serve, keys: &[(&str, &str)]| {
        std::fs::write(serve.dir.path().join("stacyvm.yaml"), config(keys)).unwrap();
    };
    take_keys(&serve, &[blues]);
    assert!(serve.process.terminate().success());
    let ended = tokio::time::timeout(PATIENCE, async { while open.join_next().await.is_some() {} });
    ended.await.expect("every stream has ended");
    serve.kill_and_restart().await;
    let refused = async |api: &Api| {
        for path in ["/sandboxes", "/events?from=now", &exec, "/audit"] {
            assert_eq!(api.get(path).await.0, 401, "{path}");
        }
    };
    refused(&red).await;
    let by_link = format!("{exec}?viewer={link}");
    assert_eq!(serve.api.get(&by_link).await.0, 401);
    assert_eq!(
        Viewer::try_attach(&serve.api, &things.exec, &format!("viewer={link}")).await.err(),
        Some(401)
    );
    assert_eq!(dial(&serve.api, "/events/ws", &ticket).await.err(), Some(401));
    assert_eq!(client(&serve, BLUE).get("/sandboxes").await, (200, json!([])));

    // Its id comes back with another secret: what the one before had made stays as it is.
    const RENEWED: &str = "another-key-of-the-same-tenant";
    take_keys(&serve, &[("tenant-red", RENEWED), blues]);
    serve.kill_and_restart().await;
    refused(&red).await;
    let (status, answer) = serve.api.get(&by_link).await;
    assert_eq!(
        (status, &answer["message"]),
        (401, &json!("the key that made the viewer link is not good any more"))
    );
    assert_eq!(client(&serve, RENEWED).get(&exec).await.1["state"], "running");
}
