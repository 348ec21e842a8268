//! What comes again with its `Idempotency-Key` is answered as it was, for as long as the record has it.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::world::{World, error, json as body_of};

fn keyed(world: &World, path: &str, key: &str, body: Value) -> RequestBuilder {
    world.ask(Method::POST, path).header("Idempotency-Key", key).json(&body)
}

/// Status, exec id and body.
async fn answer(request: RequestBuilder) -> (u16, String, String) {
    let response = request.send().await.unwrap();
    let exec = response.headers().get("x-exec-id").map(|id| id.to_str().unwrap().to_owned());
    (response.status().as_u16(), exec.unwrap_or_default(), response.text().await.unwrap())
}

#[tokio::test]
async fn execs_are_answered_again_after_their_sandbox_is_gone() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let path = format!("/sandboxes/{sandbox}/exec");
    let bodies = [
        ("sync", json!({"command": "hello"}), 200),
        ("stream", json!({"command": "hello", "stream": true}), 200),
        ("failed", json!({"command": "fail"}), 400),
        ("late", json!({"command": "late"}), 408),
        ("vanished", json!({"command": "vanish"}), 409),
    ];
    let mut first = Vec::new();
    for (key, body, status) in &bodies {
        let told = answer(keyed(&world, &path, key, body.clone())).await;
        assert_eq!(told.0, *status, "{told:?}");
        assert!(told.1.starts_with("ex-"), "{told:?}");
        first.push(told);
    }
    let detached = json!({"command": "hello", "detach": true});
    let (_, exec, _) = answer(keyed(&world, &path, "detached", detached.clone())).await;
    while world.get(&format!("/execs/{exec}")).await.get("ended_at").is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    world.delete(&format!("/sandboxes/{sandbox}")).await;

    for ((key, body, _), before) in bodies.iter().zip(&first) {
        assert_eq!(&answer(keyed(&world, &path, key, body.clone())).await, before, "{key}");
        // The order of fields and blanks are no difference; another wish is.
        let other = json!({"command": "true", "stream": false});
        assert_eq!(error(keyed(&world, &path, key, other), 409).await, "CONFLICT", "{key}");
    }
    let (status, again, body) = answer(keyed(&world, &path, "detached", detached)).await;
    assert_eq!((status, &again), (202, &exec));
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["state"], "exited");
    // What never ran has no answer to give.
    assert_eq!(error(keyed(&world, &path, "new", json!({"command": "hello"})), 404).await, "NOT_FOUND");
    let bare = world.ask(Method::POST, &path).json(&json!({"command": "hello"}));
    assert_eq!(error(bare, 404).await, "NOT_FOUND");
}

#[tokio::test]
async fn a_spawn_is_answered_again_after_its_sandbox_is_gone() {
    let world = World::start().await;
    let spec = json!({"image": "alpine:latest", "ttl": "5m"});
    let sandbox = body_of(keyed(&world, "/sandboxes", "order-1", spec.clone()), 201).await;
    let id = sandbox["id"].as_str().unwrap();
    world.delete(&format!("/sandboxes/{id}")).await;
    let again = body_of(keyed(&world, "/sandboxes", "order-1", spec), 201).await;
    assert_eq!((&again["id"], &again["state"]), (&sandbox["id"], &json!("destroyed")));
    assert_eq!(again["created_at"], sandbox["created_at"]);
    let other = keyed(&world, "/sandboxes", "order-1", json!({"image": "other:latest"}));
    assert_eq!(error(other, 409).await, "CONFLICT");
    assert_eq!(world.get("/sandboxes").await, json!([]), "none was made again");

    // The template may be gone as well.
    let template = json!({"name": "t", "image": "alpine:latest"});
    world.post("/templates", template, 201).await;
    let ask = || keyed(&world, "/templates/t/spawn", "order-2", json!({}));
    let first = body_of(ask(), 201).await;
    world.delete(&format!("/sandboxes/{}", first["id"].as_str().unwrap())).await;
    world.delete("/templates/t").await;
    assert_eq!(body_of(ask(), 201).await["id"], first["id"]);

    // One that could not be made could not be made.
    let none = json!({"image": "no/such:image"});
    for _ in 0..2 {
        let request = keyed(&world, "/sandboxes", "order-3", none.clone());
        assert_eq!(error(request, 400).await, "BAD_REQUEST");
    }
}

#[tokio::test]
async fn what_is_meant_for_a_running_exec_waits_for_one_that_was_asked_for_just_now() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let path = format!("/sandboxes/{sandbox}/exec");
    let start = async |command: &str| {
        let started = world.post(&path, json!({"command": command, "detach": true}), 202).await;
        started["exec_id"].as_str().unwrap().to_owned()
    };
    let exec = start("slow").await;
    assert_eq!(world.get(&format!("/execs/{exec}")).await["state"], "pending");
    world.post(&format!("/execs/{exec}/signal"), json!({"signal": "TERM"}), 200).await;
    assert_eq!(world.get(&format!("/execs/{exec}")).await["state"], "running");
    // One that ends without having begun is not waited for any longer.
    let exec = start("slow fail").await;
    let signal = world.ask(Method::POST, &format!("/execs/{exec}/signal")).json(&json!({"signal": "TERM"}));
    assert_eq!(error(signal, 409).await, "CONFLICT");
}
