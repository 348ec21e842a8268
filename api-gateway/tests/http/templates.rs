//! Templates.

use reqwest::Method;
use serde_json::json;

use super::world::{BLUE, World, error, json as body_of};

#[tokio::test]
async fn a_template_is_saved_replaced_spawned_from_and_deleted() {
    let world = World::start().await;
    let template = json!({"name": "py", "image": "python:3.12", "memory_mb": 300, "vcpus": 2, "ttl": "20m", "provider": "", "metadata": {}});
    let mut saved = world.post("/templates", template, 201).await;
    let made_at = saved["created_at"].take();
    assert_eq!(saved["updated_at"].take(), made_at);
    assert_eq!(
        saved,
        json!({
            "name": "py", "image": "python:3.12", "memory_mb": 300, "vcpus": 2, "cpu_cores": 2, "ttl": "20m0s", "ttl_seconds": 1200,
            "version": 1, "created_at": null, "updated_at": null
        })
    );
    let replaced =
        world.post("/templates", json!({"name": "py", "image": "python:3.12", "memory_mb": 301}), 201).await;
    assert_eq!(world.get("/templates").await, json!([replaced]));
    assert_eq!(error(world.ask_as(BLUE, Method::GET, "/templates/py"), 404).await, "NOT_FOUND");
    assert_eq!(error(world.ask_as(BLUE, Method::DELETE, "/templates/py"), 404).await, "NOT_FOUND");

    let spawned = body_of(world.ask(Method::POST, "/templates/py/spawn"), 201).await;
    assert_eq!(
        (&spawned["image"], &spawned["memory_mb"], &spawned["template"]),
        (&json!("python:3.12"), &json!(301), &json!("py"))
    );
    let spawned = world
        .post("/sandboxes", json!({"template": "py", "image": "alpine:latest", "memory_mb": 300}), 201)
        .await;
    assert_eq!((&spawned["image"], &spawned["memory_mb"]), (&json!("python:3.12"), &json!(300)));

    assert_eq!(world.delete("/templates/py").await, json!({"status": "deleted"}));
    assert_eq!(error(world.ask(Method::GET, "/templates/py"), 404).await, "NOT_FOUND");
    assert_eq!(error(world.ask(Method::DELETE, "/templates/py"), 404).await, "NOT_FOUND");
}
