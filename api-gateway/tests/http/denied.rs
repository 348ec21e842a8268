//! Who is turned away is in the record, counted, without what was shown.

use std::time::Duration;

use events::{AccessDenied, AccessEvent, Event, EventData, Position};
use record::EventFilter;
use reqwest::Method;

use super::feed::dial;
use super::world::{BLUE, OPERATOR, RED, World, json};

/// The events of denied access, once there are enough of them.
pub async fn denied(
    world: &World,
    enough: impl Fn(&[(Event, AccessDenied)]) -> bool,
) -> Vec<(Event, AccessDenied)> {
    let filter = EventFilter { types: vec!["access.denied".to_owned()], ..EventFilter::default() };
    let began = std::time::Instant::now();
    loop {
        let frames = world.store.read(&filter, Position::ZERO, 1000).await.unwrap();
        let found: Vec<_> = frames
            .iter()
            .map(|frame| {
                let header = String::from_utf8_lossy(&frame.header);
                assert!(!header.contains("secret"), "{header}");
                let event = frame.decode().unwrap();
                let EventData::Access(AccessEvent::Denied(denied)) = event.data.clone() else {
                    panic!("{event:?}")
                };
                (event, denied)
            })
            .collect();
        if enough(&found) {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{found:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn counted(found: &[(Event, AccessDenied)], reason: &str) -> u64 {
    found.iter().filter(|(_, denied)| denied.reason == reason).map(|(_, denied)| denied.count).sum()
}

#[tokio::test]
async fn wrong_keys_are_counted_and_never_shown() {
    let world = World::with(|_| {}, false).await;
    for n in 0..200 {
        let key = format!("wrong-secret-{n}");
        let answer = world.ask_as(&key, Method::GET, "/sandboxes").send().await.unwrap();
        assert_eq!(answer.status(), 401);
    }
    assert_eq!(world.ask_bare(Method::DELETE, "/sandboxes/sb-1").send().await.unwrap().status(), 401);
    let found =
        denied(&world, |found| counted(found, "no key") == 1 && counted(found, "wrong key") >= 150).await;
    assert!(found.len() <= 3, "a flood is a few events: {found:#?}");
    for (event, denied) in &found {
        assert_eq!((event.tenant.as_str(), event.actor.to_string().as_str()), ("_system", "client:"));
        assert_eq!(denied.source.as_deref(), Some("127.0.0.1"));
    }
    let (_, burst) = found.iter().find(|(_, denied)| denied.reason == "wrong key").unwrap();
    assert_eq!(burst.route, "GET /sandboxes");
    assert!(burst.count > 1 && burst.first_at.is_some());
    let bare = found.iter().find(|(_, denied)| denied.reason == "no key").unwrap();
    assert_eq!((bare.1.route.as_str(), bare.1.first_at), ("DELETE /sandboxes/{id}", None));
}

#[tokio::test]
async fn each_way_to_be_turned_away_has_its_reason() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "hello", 200).await["exec_id"].as_str().unwrap().to_owned();
    let origin = world.ask(Method::GET, "/sandboxes").header("Origin", "https://evil.example");
    assert_eq!(origin.send().await.unwrap().status(), 403);
    let ticket = [("sec-websocket-protocol", "stacyvm.v1, ticket.bm90aGluZw.none")];
    assert_eq!(dial(&world, &format!("/execs/{exec}/attach"), &ticket).await.err(), Some(401));
    let link = world.ask_bare(Method::GET, &format!("/execs/{exec}?viewer=a.b"));
    assert_eq!(link.send().await.unwrap().status(), 401);
    for path in [format!("/sandboxes/{sandbox}"), format!("/execs/{exec}"), "/audit?tenant=red".to_owned()] {
        let status = world.ask_as(BLUE, Method::GET, &path).send().await.unwrap().status();
        assert_eq!(status, 404, "{path}");
    }
    let found = denied(&world, |found| {
        let all = ["foreign origin", "bad ticket", "bad viewer link"];
        all.iter().all(|reason| counted(found, reason) == 1) && counted(found, "not the tenant's") == 3
    })
    .await;
    let others = found.iter().filter(|(_, denied)| denied.reason == "not the tenant's");
    assert!(others.clone().all(|(event, _)| event.tenant.as_str() == "blue"), "{found:#?}");
    assert!(found.iter().all(|(event, _)| event.tenant.as_str() != "red"), "{found:#?}");
}

/// Also by what is in its own log a tenant cannot tell what is another's from what is nobody's.
#[tokio::test]
async fn what_is_anothers_and_what_is_nobodys_are_counted_alike() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    for (key, id) in [(BLUE, sandbox.as_str()), (OPERATOR, "sb-01jd2x5c0pe3tt4m1q5a8z0v9k")] {
        let answer = world.ask_as(key, Method::GET, &format!("/sandboxes/{id}")).send().await.unwrap();
        assert_eq!(answer.status(), 404);
    }
    let found = denied(&world, |found| counted(found, "not the tenant's") == 2).await;
    let told =
        |tenant: &str| found.iter().find(|(event, _)| event.tenant.as_str() == tenant).unwrap().1.clone();
    assert_eq!(told("blue"), told("operators"));
}

#[tokio::test]
async fn a_spent_ticket_is_told_to_its_tenant() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "hello", 200).await["exec_id"].as_str().unwrap().to_owned();
    let ticket = world.post("/tickets", serde_json::json!({}), 201).await;
    let ticket = format!("stacyvm.attach.v1, ticket.{}", ticket["ticket"].as_str().unwrap());
    let path = format!("/execs/{exec}/attach");
    dial(&world, &path, &[("sec-websocket-protocol", &ticket)]).await.unwrap();
    assert_eq!(dial(&world, &path, &[("sec-websocket-protocol", &ticket)]).await.err(), Some(401));
    let found = denied(&world, |found| counted(found, "bad ticket") == 1).await;
    assert_eq!(found[0].0.tenant.as_str(), "red");
}

#[tokio::test]
async fn a_ticket_buys_nothing_but_a_websocket() {
    let world = World::start().await;
    let ticket = world.post("/tickets", serde_json::json!({}), 201).await;
    let ticket = format!("stacyvm.v1, ticket.{}", ticket["ticket"].as_str().unwrap());
    let exec = events::ExecId::new();
    let (viewers, attach) = (format!("/execs/{exec}/viewers"), format!("/execs/{exec}/attach"));
    for (method, path) in [
        (Method::GET, "/sandboxes"),
        (Method::POST, "/sandboxes"),
        (Method::POST, "/tickets"),
        (Method::POST, &viewers),
        (Method::GET, "/audit/export"),
    ] {
        let request = world.ask_bare(method, path).header("sec-websocket-protocol", &ticket);
        let request = request.header("upgrade", "websocket").header("connection", "upgrade");
        assert_eq!(request.send().await.unwrap().status(), 401, "{path}");
    }
    for path in ["/events/ws", &attach] {
        let request = world.ask_bare(Method::GET, path).header("sec-websocket-protocol", &ticket);
        assert_eq!(request.send().await.unwrap().status(), 401, "{path} without an upgrade");
    }
    // All of that has not spent it.
    dial(&world, "/events/ws?from=now", &[("sec-websocket-protocol", &ticket)]).await.unwrap();
}

#[tokio::test]
async fn metrics_of_the_whole_deployment_are_for_operators() {
    let world = World::start().await;
    world.sandbox().await;
    let status =
        async |key| world.ask_as(key, Method::GET, "/metrics/prometheus").send().await.unwrap().status();
    assert_eq!(status(RED).await, 403);
    assert_eq!(status(OPERATOR).await, 200);
    let of = async |key, path: &str| json(world.ask_as(key, Method::GET, path), 200).await;
    let whole = ["nodes_live", "capacity", "used", "feed_head", "recorder_lag_seconds"];
    let (all, own) = (of(OPERATOR, "/metrics").await, of(BLUE, "/metrics").await);
    for name in whole {
        assert!(all[name].is_number() && own.get(name).is_none(), "{name}: {all} {own}");
    }
    assert_eq!((&own["sandboxes_live"], &own["nats_connected"]), (&0.into(), &true.into()));
    let (all, own) = (of(OPERATOR, "/diagnostics").await, of(BLUE, "/diagnostics").await);
    for pointer in ["/workers/items/0", "/events/head", "/process/memory_bytes", "/store/latency_ms"] {
        assert!(all.pointer(pointer).is_some() && own.pointer(pointer).is_none(), "{pointer}: {all} {own}");
    }
    // Where nobody else is, nobody is told of others.
    let alone = World::with(|config| config.keys.retain(|key| key.tenant.as_str() == "red"), true).await;
    assert_eq!(json(alone.ask(Method::GET, "/metrics"), 200).await["nodes_live"], 1);
    assert_eq!(json(alone.ask(Method::GET, "/diagnostics"), 200).await["workers"]["total"], 1);
}

#[tokio::test]
async fn what_was_counted_is_written_before_a_gateway_stops() {
    let mut world = World::with(|_| {}, false).await;
    for _ in 0..5 {
        world.ask_as("wrong", Method::GET, "/sandboxes").send().await.unwrap();
    }
    world.stop.cancel();
    world.serving.take().unwrap().await.unwrap().unwrap();
    let found = denied(&world, |found| counted(found, "wrong key") == 5).await;
    assert_eq!(found.len(), 1);
}
