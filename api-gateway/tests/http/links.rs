//! Viewer links: who sees them, who ends them, and what they open then.

use std::net::SocketAddr;
use std::time::Duration;

use events::{AccessEvent, AccessRevoked, DetachReason, EventData, ExecEvent, Position};
use futures::StreamExt;
use record::EventFilter;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::feed::dial;
use super::world::{BLUE, World, error, json as body_of, key};

/// An exec that runs, and a link to it.
async fn shared(world: &World) -> (String, Value) {
    let sandbox = world.sandbox().await;
    let body = json!({"command": "hang", "detach": true});
    let exec = world.post(&format!("/sandboxes/{sandbox}/exec"), body, 202).await;
    let exec = exec["exec_id"].as_str().unwrap().to_owned();
    while world.get(&format!("/execs/{exec}")).await["state"] != "running" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let link = world.post(&format!("/execs/{exec}/viewers"), json!({}), 201).await;
    (exec, link)
}

/// What a gateway says to whoever comes by a link.
async fn by(gateway: SocketAddr, exec: &str, link: &Value) -> (u16, Value) {
    let token = link["token"].as_str().unwrap();
    let answer = reqwest::get(format!("http://{gateway}/api/v1/execs/{exec}?viewer={token}")).await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_link_is_listed_and_revoked_at_every_gateway_and_what_it_opened_ends() {
    let world = World::start().await;
    let (exec, link) = shared(&world).await;
    let path = format!("/execs/{exec}/viewers");
    let other = world.post(&path, json!({"ttl": "2h"}), 201).await;
    let listed = world.get(&path).await;
    assert_eq!(listed["viewers"][0]["id"], link["id"]);
    assert_eq!(
        listed["viewers"][1],
        json!({
            "id": other["id"],
            "created_by": "client:key-of-red",
            "created_at": listed["viewers"][1]["created_at"],
            "expires_at": other["expires_at"],
        })
    );
    let gateway = world.another_gateway(|_| {}).await;
    assert_eq!(by(gateway, &exec, &link).await.0, 200);

    // Watched in every way that goes on.
    let token = link["token"].as_str().unwrap();
    let (mut socket, _) = dial(&world, &format!("/execs/{exec}/attach?viewer={token}"), &[]).await.unwrap();
    let output = format!("http://{gateway}/api/v1/execs/{exec}/output?follow=true&viewer={token}");
    let output = reqwest::get(output).await.unwrap();
    assert_eq!(output.status(), 200);
    let one = format!("{path}/{}", link["id"].as_str().unwrap());
    assert_eq!(error(world.ask_as(BLUE, Method::DELETE, &one), 404).await, "NOT_FOUND");
    assert_eq!(
        error(world.ask_bare(Method::DELETE, &format!("{one}?viewer={token}")), 401).await,
        "UNAUTHORIZED"
    );
    assert_eq!(world.delete(&one).await["status"], "revoked");
    assert!(output.bytes().await.is_err(), "it breaks off");
    let close = loop {
        if let Message::Close(close) = socket.next().await.unwrap().unwrap() {
            break close.unwrap();
        }
    };
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1008, "the viewer link was revoked"));

    for gateway in [world.address, gateway] {
        let (status, answer) = by(gateway, &exec, &link).await;
        assert_eq!((status, &answer["message"]), (401, &json!("the viewer link was revoked")));
        assert_eq!(by(gateway, &exec, &other).await.0, 200, "the other one is as good as before");
    }
    assert_eq!(dial(&world, &format!("/execs/{exec}/attach?viewer={token}"), &[]).await.err(), Some(401));
    assert_eq!(world.get(&path).await["viewers"].as_array().unwrap().len(), 1);
    assert_eq!(error(world.ask(Method::DELETE, &one), 404).await, "NOT_FOUND");
    // One that starts later knows it from the record.
    let later = world.another_gateway(|_| {}).await;
    assert_eq!((by(later, &exec, &link).await.0, by(later, &exec, &other).await.0), (401, 200));

    // And the log has it.
    let types = ["access.revoked", "exec.detached"].map(str::to_owned).to_vec();
    let filter = EventFilter { types, ..EventFilter::default() };
    let found = loop {
        let frames = world.store.read(&filter, Position::ZERO, 10).await.unwrap();
        if frames.len() == 2 {
            break frames;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let revoked = found[0].decode().unwrap();
    assert_eq!((revoked.tenant.as_str(), revoked.actor.to_string().as_str()), ("red", "client:key-of-red"));
    let said =
        AccessRevoked { exec: exec.parse().unwrap(), viewer: link["id"].as_str().unwrap().parse().unwrap() };
    assert_eq!(revoked.data, EventData::Access(AccessEvent::Revoked(said)));
    let EventData::Exec(ExecEvent::Detached(detached)) = found[1].decode().unwrap().data else {
        panic!("{found:?}")
    };
    assert_eq!(detached.reason, DetachReason::Revoked);
}

#[tokio::test]
async fn a_link_is_good_as_long_as_the_very_key_that_made_it() {
    let world = World::start().await;
    let (exec, link) = shared(&world).await;
    let ticket = world.post("/tickets", json!({}), 201).await["ticket"].as_str().unwrap().to_owned();
    let dead = "the key that made the viewer link is not good any more";
    let gone = world.another_gateway(|config| config.keys.retain(|key| key.tenant.as_str() != "red")).await;
    // The id stays, the secret does not.
    let renewed = world.another_gateway(|config| config.keys[0] = key("red", "another-secret")).await;
    let open = world.another_gateway(|config| config.keys.clear()).await;
    for gateway in [gone, renewed, open] {
        let (status, answer) = by(gateway, &exec, &link).await;
        assert_eq!((status, &answer["message"]), (401, &json!(dead)));
    }
    assert_eq!(by(world.address, &exec, &link).await.0, 200);

    // The same of a ticket.
    let request = reqwest::Client::new()
        .get(format!("http://{renewed}/api/v1/events/ws?from=now"))
        .header("sec-websocket-protocol", format!("stacyvm.v1, ticket.{ticket}"))
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13");
    let request = request.header("connection", "upgrade").header("upgrade", "websocket");
    assert_eq!(request.send().await.unwrap().status(), 401);
}

#[tokio::test]
async fn a_tenant_has_so_many_links_and_no_more() {
    let world = World::start().await;
    let (exec, link) = shared(&world).await;
    let path = format!("/execs/{exec}/viewers");
    let asked = futures::stream::iter(1..1_000).map(|_| world.ask(Method::POST, &path).send());
    let made: Vec<_> = asked.buffer_unordered(32).collect().await;
    assert!(made.iter().all(|answer| answer.as_ref().unwrap().status() == 201));
    assert_eq!(error(world.ask(Method::POST, &path), 429).await, "RESOURCE_LIMIT");
    world.delete(&format!("{path}/{}", link["id"].as_str().unwrap())).await;
    body_of(world.ask(Method::POST, &path), 201).await;
}
