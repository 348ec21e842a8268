//! Where scrollback ends and what is live begins.

use serde_json::{Value, json};

use super::raw::{Got, Raw};
use super::world::World;

/// What an attachment says up to its close, or up to what is live: the type of each control message, and what was written.
async fn story(world: &World, path: &str, to_the_end: bool) -> Vec<String> {
    let mut raw = Raw::open(world, path, None, "").await;
    let mut story: Vec<String> = Vec::new();
    loop {
        match raw.next().await {
            Got::Frame(0x82, frame) if frame[0] == 3 => {
                let control: Value = serde_json::from_slice(&frame[1..]).unwrap();
                let kind = control["type"].as_str().unwrap();
                if kind == "live" {
                    story.push(format!("live {} {}", control["stdout_offset"], control["stderr_offset"]));
                    if !to_the_end {
                        return story;
                    }
                } else {
                    story.push(kind.to_owned());
                }
            }
            Got::Frame(0x82, frame) => story.push(String::from_utf8(frame[9..].to_vec()).unwrap()),
            Got::Frame(0x88, _) => return story,
            Got::Frame(..) => {}
            Got::End => panic!("no close: {story:?}"),
        }
    }
}

#[tokio::test]
async fn an_attachment_says_once_that_what_follows_is_live() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let detach = async |command: &str| {
        let body = json!({ "command": command, "detach": true });
        let exec = world.post(&format!("/sandboxes/{sandbox}/exec"), body, 202).await;
        exec["exec_id"].as_str().unwrap().to_owned()
    };
    // One that has ended, from its beginning, from the middle, from its end, and from beyond.
    let ended = detach("hello").await;
    let whole = format!("/execs/{ended}/attach");
    while !story(&world, &whole, true).await.contains(&"exit".to_owned()) {}
    for (query, wanted) in [
        ("", vec!["attached", "hello\n", "oops\n", "live 6 5", "exit"]),
        ("?stdout_offset=2", vec!["attached", "llo\n", "oops\n", "live 6 5", "exit"]),
        ("?stdout_offset=6&stderr_offset=5", vec!["attached", "live 6 5", "exit"]),
        ("?stdout_offset=60&stderr_offset=50", vec!["attached", "live 60 50", "exit"]),
    ] {
        assert_eq!(story(&world, &format!("{whole}{query}"), true).await, wanted, "{query}");
    }
    // One that writes nothing at all.
    let silent = detach("true").await;
    let story_of_silent = story(&world, &format!("/execs/{silent}/attach"), true).await;
    let told: Vec<&String> = story_of_silent.iter().filter(|said| *said != "started").collect();
    assert_eq!(told, ["attached", "live 0 0", "exit"]);
    // One that runs and says no more.
    let running = detach("hang").await;
    let path = format!("/execs/{running}/attach");
    while world.get(&format!("/execs/{running}")).await["stdout_bytes"] != 3 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(story(&world, &path, false).await, ["attached", "up\n", "live 3 0"]);
    assert_eq!(story(&world, &format!("{path}?stdout_offset=3"), false).await, ["attached", "live 3 0"]);
    // Much: frame after frame, and then once.
    let much = detach("pour").await;
    let path = format!("/execs/{much}/attach");
    let all = story(&world, &path, true).await;
    assert_eq!(all.iter().filter(|said| said.starts_with("live")).count(), 1);
    let again = story(&world, &path, true).await;
    assert_eq!(again[again.len() - 2], format!("live {} 0", super::executor::POURED << 16));
}
