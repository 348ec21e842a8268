//! Webhooks: what is recorded arrives, in order and signed, whoever is killed in between.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use secrets::WebhookSecret;
use serde_json::{Value, json};
use support::api::Api;
use support::eventually;
use support::process::{Process, stacyvm};
use support::receiver::{Answer, Received, Receiver};
use support::serve::Serve;
use support::split::Split;

const PATIENCE: Duration = Duration::from_secs(30);
const LOOPBACK: [(&str, &str); 2] =
    [("STACYVM_WEBHOOKS_ALLOW_HTTP", "true"), ("STACYVM_WEBHOOKS_ALLOW_NETWORKS", "127.0.0.0/8")];

async fn serve() -> Serve {
    Serve::with("docker", &LOOPBACK).await
}

/// Makes a webhook and gives back what the server told of it.
async fn webhook(api: &Api, body: Value) -> Value {
    let (status, answer) = api.post("/webhooks", body).await;
    assert_eq!(status, 201, "{answer}");
    answer
}

async fn state(api: &Api, webhook: &Value) -> Value {
    let (status, answer) = api.get(&format!("/webhooks/{}", webhook["id"].as_str().unwrap())).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// One event each, and nothing of a sandbox is needed for it.
async fn save_templates(api: &Api, names: std::ops::Range<usize>) {
    for number in names {
        let body = json!({"name": format!("t{number}"), "image": "alpine:latest"});
        assert_eq!(api.post("/templates", body).await.0, 201);
    }
}

fn names(received: &[Received]) -> Vec<String> {
    received
        .iter()
        .map(|request| request.event())
        .filter(|event| event["type"] == "template.saved")
        .map(|event| event["data"]["template"]["name"].as_str().unwrap().to_owned())
        .collect()
}

fn expected(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("t{number}")).collect()
}

/// Waits until these have all arrived, and gives back all that came in.
async fn all_arrived(receiver: &Receiver, range: std::ops::Range<usize>) -> Vec<Received> {
    let wanted: BTreeSet<String> = expected(range).into_iter().collect();
    eventually("all events arrive", PATIENCE, async || {
        let received = receiver.received();
        let seen: BTreeSet<String> = names(&received).into_iter().collect();
        wanted.is_subset(&seen).then_some(received)
    })
    .await
}

#[tokio::test]
async fn events_arrive_in_order_once_each_and_signed() {
    let serve = serve().await;
    let receiver = Receiver::start().await;
    let hook =
        webhook(&serve.api, json!({"url": receiver.url(), "types": ["template.*", "sandbox.*", "exec.*"]}))
            .await;
    let secret: WebhookSecret = hook["secret"].as_str().unwrap().parse().unwrap();
    assert!(state(&serve.api, &hook).await.get("secret").is_none(), "a secret is shown once");

    save_templates(&serve.api, 0..40).await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest", "ttl": "5m"})).await;
    serve.api.exec(&sandbox, "echo hello").await;
    let received = eventually("the end of the exec arrives", PATIENCE, async || {
        let received = receiver.received();
        received.iter().any(|request| request.event()["type"] == "exec.exited").then_some(received)
    })
    .await;

    assert_eq!(names(&received), expected(0..40));
    let positions: Vec<u64> = received.iter().map(Received::position).collect();
    assert!(positions.is_sorted_by(|a, b| a < b), "{positions:?}");
    let types: Vec<Value> = received[40..].iter().map(|request| request.event()["type"].clone()).collect();
    assert_eq!(
        types,
        ["sandbox.requested", "sandbox.starting", "sandbox.running", "exec.started", "exec.exited"],
        "no output, which nobody asked for"
    );
    for request in &received {
        let event = request.event();
        assert_eq!((&event["specversion"], &event["id"]), (&json!("1.0"), &json!(request.id())));
        assert!(request.headers["content-type"].starts_with("application/cloudevents+json"));
        let timestamp = request.headers["webhook-timestamp"].parse().unwrap();
        let signature = secret.sign(&request.id(), timestamp, &request.body);
        assert_eq!(request.headers["webhook-signature"], signature);
    }
    let log = std::fs::read(serve.dir.path().join("events.db")).unwrap();
    let shown = hook["secret"].as_str().unwrap().as_bytes();
    assert!(!log.windows(shown.len()).any(|window| window == shown), "the secret is in the log");
}

#[tokio::test]
async fn what_is_refused_is_tried_again_in_order_and_shown_as_failing() {
    let serve = serve().await;
    let refusals = AtomicUsize::new(0);
    let receiver = Receiver::with(move |request| {
        let is_third = request.event()["data"]["template"]["name"] == "t2";
        let refuse = is_third && refusals.fetch_add(1, Ordering::SeqCst) < 2;
        Answer::status(if refuse { 500 } else { 200 })
    })
    .await;
    let hook = webhook(&serve.api, json!({"url": receiver.url(), "types": ["template.saved"]})).await;
    save_templates(&serve.api, 0..5).await;
    let failing = eventually("it fails", PATIENCE, async || {
        Some(state(&serve.api, &hook).await).filter(|state| state["state"] == "failing")
    })
    .await;
    assert_eq!(failing["last_error"], "answered 500", "{failing}");
    assert!(failing["lag"].as_u64().unwrap() >= 3, "{failing}");
    let received = all_arrived(&receiver, 0..5).await;
    assert_eq!(names(&received), ["t0", "t1", "t2", "t2", "t2", "t3", "t4"]);
    let attempts: BTreeSet<String> = received[2..5].iter().map(Received::id).collect();
    assert_eq!(attempts.len(), 1, "all attempts have one id");
    let active = eventually("it is well again", PATIENCE, async || {
        Some(state(&serve.api, &hook).await).filter(|state| state["state"] == "active" && state["lag"] == 0)
    })
    .await;
    assert_eq!((&active["attempts"], active.get("last_error")), (&json!(0), None), "{active}");
}

#[tokio::test]
async fn nothing_is_lost_when_the_receiver_is_away_and_when_the_server_is_killed() {
    let mut serve = serve().await;
    let mut receiver = Receiver::start().await;
    webhook(&serve.api, json!({"url": receiver.url(), "types": ["template.saved"]})).await;
    save_templates(&serve.api, 0..10).await;
    all_arrived(&receiver, 0..10).await;

    receiver.stop().await;
    save_templates(&serve.api, 10..20).await;
    receiver.resume().await;
    all_arrived(&receiver, 0..20).await;

    let api = serve.api.clone();
    let saving = tokio::spawn(async move { save_templates(&api, 20..60).await });
    eventually("half of them arrive", PATIENCE, async || {
        names(&receiver.received()).contains(&"t40".to_owned()).then_some(())
    })
    .await;
    saving.await.unwrap();
    serve.kill_and_restart().await;
    save_templates(&serve.api, 60..70).await;
    let received = all_arrived(&receiver, 0..70).await;

    // Without what was sent twice, everything is there in order.
    let mut seen = BTreeSet::new();
    let first: Vec<Received> = received.into_iter().filter(|request| seen.insert(request.id())).collect();
    assert_eq!(names(&first), expected(0..70));
}

#[tokio::test]
async fn a_cursor_that_is_moved_back_sends_again_what_follows_it() {
    let serve = serve().await;
    let receiver = Receiver::start().await;
    let hook =
        webhook(&serve.api, json!({"url": receiver.url(), "types": ["template.saved"], "from": 1})).await;
    save_templates(&serve.api, 0..10).await;
    let first = all_arrived(&receiver, 0..10).await;

    let path = format!("/webhooks/{}/redeliver", hook["id"].as_str().unwrap());
    let (status, answer) = serve.api.post(&path, json!({"from": first[6].position()})).await;
    assert_eq!(status, 200, "{answer}");
    let again = eventually("they arrive again", PATIENCE, async || {
        Some(receiver.received()).filter(|received| received.len() >= 14)
    })
    .await;
    assert_eq!(names(&again[10..]), expected(6..10));
    let ids = |received: &[Received]| received.iter().map(Received::id).collect::<Vec<_>>();
    assert_eq!(ids(&again[10..]), ids(&again[6..10]), "the same events have the same ids");
    assert_eq!(serve.api.post(&path, json!({"from": 1_000_000})).await.0, 400);
}

#[tokio::test]
async fn a_dead_receiver_is_suspended_and_shown_and_holds_up_nobody() {
    let environment = [LOOPBACK[0], LOOPBACK[1], ("STACYVM_WEBHOOKS_GIVE_UP_AFTER", "2s")];
    let serve = Serve::with("docker", &environment).await;
    let (alive, mut dead) = (Receiver::start().await, Receiver::start().await);
    let slow = Receiver::with(|_| Answer { after: Duration::from_secs(60), ..Answer::status(200) }).await;
    dead.stop().await;
    let types = json!(["template.saved"]);
    webhook(&serve.api, json!({"url": slow.url(), "types": types})).await;
    let hook = webhook(&serve.api, json!({"url": dead.url(), "types": types})).await;
    webhook(&serve.api, json!({"url": alive.url(), "types": types})).await;
    save_templates(&serve.api, 0..5).await;
    all_arrived(&alive, 0..5).await;
    let suspended = eventually("it is suspended", PATIENCE, async || {
        Some(state(&serve.api, &hook).await).filter(|state| state["state"] == "suspended")
    })
    .await;
    assert!(suspended["attempts"].as_u64().unwrap() >= 2, "{suspended}");
    assert_eq!(suspended["last_error"], "cannot connect: connection refused", "{suspended}");
    assert!(suspended["suspended_at"].is_string() && suspended["lag"].as_u64().unwrap() >= 5, "{suspended}");

    dead.resume().await;
    let id = hook["id"].as_str().unwrap();
    let (status, ping) = serve.api.post(&format!("/webhooks/{id}/ping"), json!({})).await;
    assert_eq!((status, &ping["delivered"], &ping["status"]), (200, &json!(true), &json!(204)), "{ping}");
    let pinged = dead.received();
    assert_eq!((pinged.len(), &pinged[0].event()["type"]), (1, &json!("webhook.pinged")));

    let url = serve.api.url(&format!("/webhooks/{id}"));
    let body = json!({"url": dead.url(), "types": types, "description": "back again"});
    let answer = serve.api.http.put(url).json(&body).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    assert_eq!((&answer["state"], answer.get("secret")), (&json!("active"), None), "{answer}");
    assert_eq!(names(&all_arrived(&dead, 0..5).await), expected(0..5));
}

#[tokio::test]
async fn addresses_that_are_not_public_are_not_called() {
    let serve = Serve::with("docker", &[LOOPBACK[0]]).await;
    let receiver = Receiver::start().await;
    for host in ["127.0.0.1", "[::1]", "169.254.169.254", "0x7f.1", "10.0.0.1", "[::ffff:127.0.0.1]"] {
        let url = format!("http://{host}:{}/", receiver.port);
        let (status, answer) = serve.api.post("/webhooks", json!({"url": url})).await;
        assert_eq!(status, 400, "{host}: {answer}");
    }
    // Only at the connection is it known what a name resolves to.
    let url = format!("http://localhost:{}/", receiver.port);
    let hook = webhook(&serve.api, json!({"url": url})).await;
    let path = format!("/webhooks/{}/ping", hook["id"].as_str().unwrap());
    let (status, ping) = serve.api.post(&path, json!({})).await;
    assert_eq!(
        (status, &ping["delivered"], &ping["message"]),
        (200, &json!(false), &json!("the host has no address that may be called")),
        "{ping}"
    );
    assert!(receiver.received().is_empty());
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let serve = serve().await;
    let target = Receiver::start().await;
    let location = target.url();
    let receiver = Receiver::with(move |_| Answer {
        head: format!("HTTP/1.1 307 Elsewhere\r\nlocation: {location}\r\n"),
        after: Duration::ZERO,
    })
    .await;
    let hook = webhook(&serve.api, json!({"url": receiver.url()})).await;
    let path = format!("/webhooks/{}/ping", hook["id"].as_str().unwrap());
    let (_, ping) = serve.api.post(&path, json!({})).await;
    assert_eq!((&ping["delivered"], &ping["status"]), (&json!(false), &json!(307)), "{ping}");
    assert!(target.received().is_empty());
}

#[tokio::test]
async fn of_two_deliverers_one_works_and_the_other_takes_over_when_it_is_killed() {
    let split = Split::start().await;
    let receiver = Receiver::start().await;
    let (mut first, mut second) =
        (split.another("webhooks", "webhooks-1"), split.another("webhooks", "webhooks-2"));
    webhook(&split.api, json!({"url": receiver.url(), "types": ["template.saved"]})).await;
    save_templates(&split.api, 0..20).await;
    assert_eq!(names(&all_arrived(&receiver, 0..20).await), expected(0..20), "each was sent once");

    let works = |process: &Process| process.log_text().contains("delivering webhooks");
    let leader = match (works(&first), works(&second)) {
        (true, false) => &mut first,
        (false, true) => &mut second,
        both => panic!("{both:?} deliver:\n{}\n{}", first.log_text(), second.log_text()),
    };
    save_templates(&split.api, 20..30).await;
    leader.kill();
    save_templates(&split.api, 30..40).await;
    let received = all_arrived(&receiver, 0..40).await;
    let mut seen = BTreeSet::new();
    let once: Vec<Received> = received.into_iter().filter(|request| seen.insert(request.id())).collect();
    assert_eq!(names(&once), expected(0..40));
}

// The receiver answers while a verb is waited for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_verbs_of_the_client_do_what_they_say() {
    let serve = serve().await;
    let receiver = Receiver::start().await;
    let verb = |words: &[&str]| {
        let mut command = stacyvm();
        command.env("STACYVM_URL", serve.api.base.trim_end_matches("/api/v1")).arg("webhook").args(words);
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, made) = verb(&["create", &receiver.url(), "--type", "template.*", "--description", "builds"]);
    let lines: Vec<&str> = made.lines().collect();
    let [id, secret] = lines[..] else { panic!("{made}") };
    assert_eq!((code, secret.starts_with("whsec_")), (0, true), "{made}");
    save_templates(&serve.api, 0..2).await;
    let received = all_arrived(&receiver, 0..2).await;

    let (code, listed) = verb(&["list"]);
    assert_eq!((code, listed.contains(id) && listed.contains("active")), (0, true), "{listed}");
    let (code, shown) = verb(&["get", id]);
    assert_eq!((code, shown.contains("builds") && !shown.contains("whsec_")), (0, true), "{shown}");
    let from = received[0].position().to_string();
    assert_eq!(verb(&["redeliver", id, "--from", &from]).0, 0);
    eventually("they arrive again", PATIENCE, async || (receiver.received().len() >= 4).then_some(())).await;
    assert_eq!(verb(&["ping", id]).0, 0);
    let (code, deleted) = verb(&["delete", id]);
    assert_eq!((code, deleted.trim()), (0, id));
    assert_ne!(verb(&["get", id]).0, 0);
}
