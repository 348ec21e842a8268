//! Execs as resources: lists, ranges of output, detached starts, viewer links.

use reqwest::Method;
use serde_json::{Value, json};

use super::world::{BLUE, World, error, json as body_of};

async fn detached(world: &World, sandbox: &str, command: &str) -> String {
    let body = json!({"command": command, "detach": true});
    let answer = world.post(&format!("/sandboxes/{sandbox}/exec"), body, 202).await;
    answer["exec_id"].as_str().unwrap().to_owned()
}

async fn ended(world: &World, exec: &str) -> Value {
    loop {
        let state = world.get(&format!("/execs/{exec}")).await;
        if state.get("ended_at").is_some() {
            return state;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_detached_exec_is_there_at_once_and_runs_once_a_key() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let start = |command: &str| {
        world
            .ask(Method::POST, &format!("/sandboxes/{sandbox}/exec"))
            .header("Idempotency-Key", "job-1")
            .json(&json!({"command": command, "detach": true}))
    };
    let first = body_of(start("hello"), 202).await;
    let exec = first["exec_id"].as_str().unwrap();
    assert_eq!(first["links"]["attach"], format!("/api/v1/execs/{exec}/attach"));
    let state = world.get(&format!("/execs/{exec}")).await;
    assert!(["pending", "running", "exited"].contains(&state["state"].as_str().unwrap()), "{state}");
    assert_eq!(ended(&world, exec).await["exit_code"], 3);
    let again = body_of(start("hello"), 202).await;
    assert_eq!((&again["exec_id"], &again["state"]), (&json!(exec), &json!("exited")));
    assert_eq!(error(start("true"), 409).await, "CONFLICT");
    let list = world.get(&format!("/sandboxes/{sandbox}/execs")).await;
    assert_eq!(list["execs"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_detached_exec_that_cannot_start_ends_as_failed() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = detached(&world, &sandbox, "fail").await;
    let state = ended(&world, &exec).await;
    assert_eq!((&state["state"], &state["message"]), (&json!("failed"), &json!("no such directory")));
}

#[tokio::test]
async fn a_terminal_needs_somebody_who_can_attach() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    for body in [
        json!({"command": "hello", "tty": true}),
        json!({"command": "hello", "stdin": true}),
        json!({"command": "hello", "detach": true, "stream": true}),
        json!({"command": "hello", "detach": true, "tty": true, "rows": 0}),
    ] {
        let request = world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&body);
        assert_eq!(error(request, 400).await, "BAD_REQUEST", "{body}");
    }
    world.post(&format!("/sandboxes/{sandbox}/exec"), json!({"command": "hello", "tty": false}), 200).await;
}

#[tokio::test]
async fn lists_are_paged_from_the_newest_on_and_outlive_the_sandbox() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let mut execs = Vec::new();
    for command in ["hello", "hello", "hang", "hello", "hello"] {
        execs.push(detached(&world, &sandbox, command).await);
    }
    for exec in execs.iter().enumerate().filter(|(index, _)| *index != 2).map(|(_, exec)| exec) {
        ended(&world, exec).await;
    }
    execs.reverse();
    let mut seen = Vec::new();
    let mut before = String::new();
    loop {
        let page = world.get(&format!("/sandboxes/{sandbox}/execs?limit=2{before}")).await;
        let ids =
            page["execs"].as_array().unwrap().iter().map(|exec| exec["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(seen, execs);
    let running = world.get(&format!("/sandboxes/{sandbox}/execs?state=running")).await;
    assert_eq!(running["execs"].as_array().unwrap().len(), 1);
    world.delete(&format!("/sandboxes/{sandbox}")).await;
    let ended = world.get(&format!("/sandboxes/{sandbox}/execs?state=ended")).await;
    assert_eq!(ended["execs"].as_array().unwrap().len(), 4);
    let path = format!("/sandboxes/{sandbox}/execs");
    assert_eq!(error(world.ask_as(BLUE, Method::GET, &path), 404).await, "NOT_FOUND");
    assert_eq!(error(world.ask(Method::GET, &format!("{path}?limit=0")), 400).await, "BAD_REQUEST");
}

#[tokio::test]
async fn output_is_served_in_ranges() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = detached(&world, &sandbox, "flood").await;
    ended(&world, &exec).await;
    let path = format!("/execs/{exec}/output");
    let ask = |range: &str| world.ask(Method::GET, &path).header("Range", range);
    for (range, content_range, length) in [
        ("bytes=0-9", "bytes 0-9/400000", 10),
        ("bytes=19999-20000", "bytes 19999-20000/400000", 2),
        ("bytes=399990-", "bytes 399990-399999/400000", 10),
        ("bytes=-5", "bytes 399995-399999/400000", 5),
        ("bytes=0-999999", "bytes 0-399999/400000", 400_000),
    ] {
        let answer = ask(range).send().await.unwrap();
        assert_eq!(answer.status(), 206, "{range}");
        assert_eq!(answer.headers()["content-range"], content_range, "{range}");
        assert_eq!(answer.headers()["content-length"], length.to_string().as_str(), "{range}");
        assert_eq!(answer.bytes().await.unwrap().len(), length, "{range}");
    }
    let past = ask("bytes=400000-").send().await.unwrap();
    assert_eq!(
        (past.status().as_u16(), &past.headers()["content-range"]),
        (416, &"bytes */400000".parse().unwrap())
    );
    assert_eq!(past.json::<Value>().await.unwrap()["code"], "RANGE_NOT_SATISFIABLE");
    let ignored = ask("bytes=0-1,3-4").send().await.unwrap();
    assert_eq!((ignored.status().as_u16(), ignored.content_length()), (200, Some(400_000)));
    let plain = world.ask(Method::GET, &format!("{path}?offset=399998")).send().await.unwrap();
    let header = |name: &str| plain.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(
        (header("accept-ranges"), header("x-exec-state"), header("x-exec-exit-code")),
        ("bytes".to_owned(), "exited".to_owned(), "0".to_owned())
    );
    assert_eq!(
        (header("x-next-offset"), header("x-output-bytes")),
        ("400000".to_owned(), "400000".to_owned())
    );
    assert_eq!(error(ask("bytes=0-1").query(&[("follow", "true")]), 400).await, "BAD_REQUEST");

    let running = detached(&world, &sandbox, "hang").await;
    let range = world.ask(Method::GET, &format!("/execs/{running}/output")).header("Range", "bytes=1-");
    let answer = loop {
        let answer = range.try_clone().unwrap().send().await.unwrap();
        if answer.status() == 206 {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(answer.headers()["content-range"], "bytes 1-2/*");
    assert_eq!(answer.text().await.unwrap(), "p\n");

    let mixed = detached(&world, &sandbox, "hello").await;
    ended(&world, &mixed).await;
    let both = world.ask(Method::GET, &format!("/execs/{mixed}/output?stream=both")).send().await.unwrap();
    assert_eq!(both.text().await.unwrap(), "hello\noops\n");
}

#[tokio::test]
async fn a_viewer_link_opens_one_exec_for_reading_until_it_expires() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let exec = detached(&world, &sandbox, "hello").await;
    let other = detached(&world, &sandbox, "hello").await;
    ended(&world, &exec).await;
    let link = world.post(&format!("/execs/{exec}/viewers"), json!({"ttl": "1500ms"}), 201).await;
    let token = link["token"].as_str().unwrap();
    assert_eq!(link["url"], format!("/api/v1/execs/{exec}/attach?viewer={token}"));
    let path = |exec: &str, about: &str| format!("/execs/{exec}{about}?viewer={token}");
    let state = body_of(world.ask_bare(Method::GET, &path(&exec, "")), 200).await;
    assert_eq!(state["id"], exec);
    let output = world.ask_bare(Method::GET, &path(&exec, "/output")).send().await.unwrap();
    assert_eq!(output.text().await.unwrap(), "hello\n");

    assert_eq!(error(world.ask_bare(Method::GET, &path(&other, "")), 404).await, "NOT_FOUND");
    for (method, path) in [
        (Method::DELETE, path(&exec, "")),
        (Method::POST, path(&exec, "/stdin")),
        (Method::POST, path(&exec, "/viewers")),
        (Method::GET, path(&exec, "/stream")),
        (Method::GET, format!("/sandboxes?viewer={token}")),
        (Method::GET, format!("/execs/{exec}?viewer={token}x")),
        (Method::GET, format!("/execs/{exec}?viewer=")),
    ] {
        assert_eq!(
            error(world.ask_bare(method.clone(), &path), 401).await,
            "UNAUTHORIZED",
            "{method} {path}"
        );
    }
    for ttl in ["0s", "169h", "1d"] {
        let request = world.ask(Method::POST, &format!("/execs/{exec}/viewers")).json(&json!({"ttl": ttl}));
        assert_eq!(error(request, 400).await, "BAD_REQUEST", "{ttl}");
    }
    // It is published before the link is given away, and shown when it is recorded.
    let mut granted = String::new();
    for _ in 0..100 {
        let events = world.ask(Method::GET, "/events?after=0&follow=false&types=access.granted");
        granted = events.send().await.unwrap().text().await.unwrap();
        if granted.contains(&exec) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(granted.contains(&exec) && granted.contains("vl-") && !granted.contains(token), "{granted}");
    // It is good for a second.
    let began = std::time::Instant::now();
    while world.ask_bare(Method::GET, &path(&exec, "")).send().await.unwrap().status() == 200 {
        assert!(began.elapsed() < std::time::Duration::from_secs(30), "a link that never expires");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let expired = body_of(world.ask_bare(Method::GET, &path(&exec, "")), 401).await;
    assert_eq!(expired["message"], "the viewer link has expired");
}
