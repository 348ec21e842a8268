//! Viewers that come and go are in the record: who, from where, how, and up to which byte.

use std::time::Duration;

use events::{DetachReason, Event, EventData, ExecEvent, Position};
use futures::StreamExt;
use record::EventFilter;
use serde_json::json;

use super::feed::dial;
use super::world::{RED, World};

/// Comings and goings, once there are so many.
async fn presence(world: &World, exec: &str, count: usize) -> Vec<Event> {
    let types = ["exec.attached", "exec.detached"].map(str::to_owned).to_vec();
    let filter = EventFilter { exec: Some(exec.parse().unwrap()), types, ..EventFilter::default() };
    let began = std::time::Instant::now();
    loop {
        let frames = world.store.read(&filter, Position::ZERO, 1000).await.unwrap();
        if frames.len() >= count {
            return frames.iter().map(|frame| frame.decode().unwrap()).collect();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "only {} of {count}", frames.len());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn watch_to_the_end(world: &World, path: &str, headers: &[(&str, &str)]) {
    let (mut socket, _) = dial(world, path, headers).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test]
async fn who_watched_is_told_with_how_far() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = world.exec(&sandbox, "hello", 200).await["exec_id"].as_str().unwrap().to_owned();
    let path = format!("/execs/{exec}/attach");
    let key = [("x-api-key", RED), ("x-user-id", "ada")];
    watch_to_the_end(&world, &format!("{path}?stdout_offset=2"), &key).await;
    let told = presence(&world, &exec, 2).await;
    let EventData::Exec(ExecEvent::Attached(attached)) = &told[0].data else { panic!("{told:?}") };
    let EventData::Exec(ExecEvent::Detached(detached)) = &told[1].data else { panic!("{told:?}") };
    assert_eq!(told[0].actor.to_string(), "client:key-of-red/ada");
    assert_eq!((attached.writes, attached.source.as_deref(), attached.untold), (true, Some("127.0.0.1"), 0));
    assert_eq!((attached.stdout_offset, attached.stderr_offset), (2, 0));
    assert_eq!(attached.attachment, detached.attachment);
    assert_eq!((detached.stdout_offset, detached.stderr_offset), (6, 5));
    assert_eq!(detached.reason, DetachReason::Ended);

    // Whoever comes with a link is named by it, and may only watch.
    let link = world.post(&format!("/execs/{exec}/viewers"), json!({}), 201).await;
    watch_to_the_end(&world, &format!("{path}?viewer={}", link["token"].as_str().unwrap()), &[]).await;
    let told = presence(&world, &exec, 4).await;
    let EventData::Exec(ExecEvent::Attached(attached)) = &told[2].data else { panic!("{told:?}") };
    assert!(!attached.writes && told[2].actor.to_string().starts_with("viewer:vl-"), "{told:?}");

    let timeline = world.get(&format!("/sandboxes/{sandbox}/timeline")).await.to_string();
    assert!(timeline.contains("exec.attached") && timeline.contains("exec.detached"), "{timeline}");
    let audit = world.get("/audit?type=exec.attached").await.to_string();
    assert!(audit.contains("exec.attached"), "{audit}");
}

#[tokio::test]
async fn a_viewer_that_leaves_a_running_exec_is_told_and_one_that_flaps_fills_nothing() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let started = json!({"command": "hang", "detach": true});
    let exec = world.post(&format!("/sandboxes/{sandbox}/exec"), started, 202).await;
    let exec = exec["exec_id"].as_str().unwrap().to_owned();
    for _ in 0..30 {
        let path = format!("/execs/{exec}/attach?mode=ro");
        let (mut socket, _) = dial(&world, &path, &[("x-api-key", RED)]).await.unwrap();
        socket.next().await.unwrap().unwrap();
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    }
    let told = presence(&world, &exec, 40).await;
    // What had been published by now is recorded before this is.
    world.exec(&sandbox, "hello", 200).await;
    assert_eq!(presence(&world, &exec, 40).await.len(), 40, "twenty came and went, the rest is counted");
    for event in &told {
        if let EventData::Exec(ExecEvent::Detached(detached)) = &event.data {
            assert_eq!(detached.reason, DetachReason::Left);
        }
    }
}
