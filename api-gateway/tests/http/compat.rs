//! What clients of the original lean on, and how those who want to hear of it hear of it.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::world::{BLUE, OPERATOR, World, error, json as body_of};

fn strict(request: RequestBuilder) -> RequestBuilder {
    request.header("Prefer", "handling=strict")
}

#[tokio::test]
async fn what_is_gone_already_is_destroyed_and_what_never_was_is_not_found() {
    let world = World::start().await;
    let path = format!("/sandboxes/{}", world.sandbox().await);
    assert_eq!(error(world.ask_as(BLUE, Method::DELETE, &path), 404).await, "NOT_FOUND");
    for _ in 0..2 {
        assert_eq!(world.delete(&path).await, json!({"status": "destroyed"}));
    }
    assert_eq!(error(strict(world.ask(Method::DELETE, &path)), 404).await, "NOT_FOUND");
    for never in ["sb-00000000000000000000000000", "sb-x"] {
        assert_eq!(error(world.ask(Method::DELETE, &format!("/sandboxes/{never}")), 404).await, "NOT_FOUND");
    }
    assert_eq!(error(world.ask_as(BLUE, Method::DELETE, &path), 404).await, "NOT_FOUND");
    // One event, however often it was asked for.
    let destroyed =
        world.ask(Method::GET, "/events?after=0&follow=false&types=sandbox.destroyed").send().await;
    assert_eq!(destroyed.unwrap().text().await.unwrap().matches("data:").count(), 1);
}

#[tokio::test]
async fn a_file_that_is_not_there_is_deleted_and_a_folder_that_is_not_there_is_empty() {
    let world = World::start().await;
    let files = format!("/sandboxes/{}/files", world.sandbox().await);
    let missing = format!("{files}?path=/not/there");
    assert_eq!(world.delete(&missing).await, json!({"status": "deleted"}));
    assert_eq!(error(strict(world.ask(Method::DELETE, &missing)), 404).await, "NOT_FOUND");
    let folder = format!("{files}/list?path=/not/there");
    assert_eq!(world.get(&folder).await, json!([]));
    assert_eq!(error(strict(world.ask(Method::GET, &folder)), 404).await, "NOT_FOUND");
    // Of a sandbox that is not there both are errors.
    for (method, path) in [(Method::DELETE, "/files?path=/a"), (Method::GET, "/files/list?path=/a")] {
        assert_eq!(error(world.ask(method, &format!("/sandboxes/sb-x{path}")), 404).await, "NOT_FOUND");
    }
}

#[tokio::test]
async fn a_shell_line_without_a_word_is_run_and_a_missing_one_is_not() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    assert_eq!(world.exec(&sandbox, "", 200).await["exit_code"], 0);
    let exec = |body: Value| world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&body);
    assert_eq!(error(exec(json!({})), 400).await, "BAD_REQUEST");
    assert_eq!(error(exec(json!({"command": "", "mode": "argv"})), 400).await, "BAD_REQUEST");
}

#[tokio::test]
async fn a_template_keeps_its_birth_and_is_replaced_by_put() {
    let world = World::start().await;
    let put = |name: &str, body: Value| world.ask(Method::PUT, &format!("/templates/{name}")).json(&body);
    let made = body_of(put("t", json!({"image": "alpine", "version": 2})), 201).await;
    assert_eq!(
        (&made["name"], &made["version"], &made["created_at"]),
        (&json!("t"), &json!(2), &made["updated_at"])
    );
    let body =
        json!({"name": "t", "image": "b", "network": "bridge", "setup": ["true"], "metadata": {"k": "v"}});
    let replaced = body_of(put("t", body), 200).await;
    assert_eq!(replaced["created_at"], made["created_at"]);
    assert!(replaced["updated_at"].as_str() > made["updated_at"].as_str(), "{replaced}");
    assert_eq!(world.get("/templates/t").await, replaced);
    assert_eq!(
        (&replaced["network"], &replaced["setup"], &replaced["metadata"], &replaced["version"]),
        (&json!("bridge"), &json!(["true"]), &json!({"k": "v"}), &json!(1))
    );
    let saved = world.post("/templates", json!({"name": "t", "image": "c"}), 201).await;
    assert_eq!(saved["created_at"], made["created_at"]);
    assert_eq!(error(put("t", json!({"name": "other", "image": "b"})), 400).await, "BAD_REQUEST");
    assert_eq!(error(put("a b", json!({"image": "b"})), 400).await, "BAD_REQUEST");
    assert_eq!(error(put("t", json!({"name": "t"})), 400).await, "BAD_REQUEST");
}

#[tokio::test]
async fn a_network_comes_from_the_request_the_template_or_the_server() {
    let world = World::with(|config| config.sandboxes.default_network = events::Network::Bridge, true).await;
    let network = async |body: Value| world.post("/sandboxes", body, 201).await["network"].clone();
    assert_eq!(network(json!({})).await, "bridge");
    assert_eq!(network(json!({"network": "none"})).await, "none");
    world.post("/templates", json!({"name": "closed", "image": "i", "network": "none"}), 201).await;
    world
        .post("/templates", json!({"name": "hosts", "image": "i", "allowed_hosts": ["mirror.example"]}), 201)
        .await;
    assert_eq!(network(json!({"template": "closed"})).await, "none");
    assert_eq!(network(json!({"template": "closed", "network": "bridge"})).await, "bridge");
    assert_eq!(network(json!({"template": "hosts"})).await, "none");
    let open = world.ask(Method::POST, "/sandboxes").json(&json!({"template": "hosts", "network": "bridge"}));
    assert_eq!(error(open, 400).await, "BAD_REQUEST");
}

#[tokio::test]
async fn probes_say_version_uptime_and_how_each_provider_fares() {
    let world = World::start().await;
    let alive = body_of(world.ask_bare(Method::GET, "/live"), 200).await;
    assert_eq!((&alive["status"], &alive["version"]), (&json!("alive"), &json!(env!("CARGO_PKG_VERSION"))));
    assert!(alive["uptime"].as_str().unwrap().ends_with('s'), "{alive}");
    let ready = body_of(world.ask_bare(Method::GET, "/ready"), 200).await;
    assert_eq!(
        (&ready["status"], &ready["version"], &ready["ready_providers"], &ready["total_providers"]),
        (&json!("ready"), &json!(env!("CARGO_PKG_VERSION")), &json!(1), &json!(1))
    );
    let provider = &ready["providers"][0];
    assert_eq!(
        (&provider["name"], &provider["healthy"], &provider["default"]),
        (&json!("docker"), &json!(true), &json!(true))
    );
    // Nobody showed a key.
    assert!(provider.get("error").is_none() && provider.get("runtime_count").is_none(), "{provider}");
}

#[tokio::test]
async fn what_the_web_ui_asks_for_is_answered() {
    let world = World::start().await;
    let sandbox =
        body_of(world.ask(Method::POST, "/sandboxes").header("X-User-ID", "ada").json(&json!({})), 201).await;
    let provider = world.get("/providers/docker").await;
    assert_eq!(
        (&provider["name"], &provider["healthy"], &provider["sandbox_count"]),
        (&json!("docker"), &json!(true), &json!(1))
    );
    assert_eq!(error(world.ask(Method::GET, "/providers/firecracker"), 404).await, "NOT_FOUND");
    assert_eq!(body_of(world.ask_as(BLUE, Method::GET, "/providers/docker"), 200).await["sandbox_count"], 0);
    assert_eq!(world.get("/snapshots").await, json!([]));
    assert_eq!(world.get("/quotas").await, json!([]));
    assert_eq!(error(world.ask(Method::GET, "/quotas/ada"), 404).await, "NOT_FOUND");
    let usage = world.get("/quotas/ada/usage").await;
    assert_eq!(
        (&usage["owner_id"], &usage["active_sandboxes"], &usage["quota_configured"]),
        (&json!("ada"), &json!(1), &json!(false))
    );
    assert_eq!(
        body_of(world.ask_as(BLUE, Method::GET, "/quotas/ada/usage"), 200).await["active_sandboxes"],
        0
    );

    let all = world.get("/diagnostics").await;
    assert_eq!((&all["store"]["healthy"], &all["transport"]["healthy"]), (&json!(true), &json!(true)));
    assert_eq!(
        (&all["sandboxes"]["active"], &all["sandboxes"]["by_provider"]),
        (&json!(1), &json!({"docker": 1}))
    );
    let all = body_of(world.ask_as(OPERATOR, Method::GET, "/diagnostics"), 200).await;
    assert_eq!(
        (&all["workers"]["online"], &all["workers"]["items"][0]["id"]),
        (&json!(1), &sandbox["worker_id"])
    );
    assert!(all["process"]["memory_bytes"].as_u64().unwrap() > 1 << 20, "{all}");
    assert_eq!(body_of(world.ask_as(BLUE, Method::GET, "/diagnostics"), 200).await["sandboxes"]["total"], 0);

    assert_eq!(error(world.ask(Method::GET, "/system/stats"), 403).await, "FORBIDDEN");
    let host = body_of(world.ask_as(OPERATOR, Method::GET, "/system/stats"), 200).await;
    for key in ["cpu_pct", "mem_pct", "disk_pct", "net_rx_bps", "net_tx_bps", "load1"] {
        assert!(host[key].as_f64().unwrap() >= 0.0, "{key}: {host}");
    }
    for twin in ["providers", "providers/docker", "metrics", "diagnostics", "quotas/summary"] {
        body_of(world.ask(Method::GET, &format!("/admin/{twin}")), 200).await;
        error(world.ask_bare(Method::GET, &format!("/admin/{twin}")), 401).await;
    }
    assert_eq!(error(world.ask(Method::GET, "/admin/sandboxes"), 404).await, "NOT_FOUND");
}

#[tokio::test]
async fn a_browser_may_send_the_headers_that_the_web_ui_sends() {
    let world =
        World::with(|config| config.allowed_origins = vec!["https://ui.example".parse().unwrap()], false)
            .await;
    let preflight = world
        .ask_bare(Method::OPTIONS, "/sandboxes")
        .header("Origin", "https://ui.example")
        .header("Access-Control-Request-Method", "PUT")
        .header("Access-Control-Request-Headers", "x-admin-api-key,x-user-id,prefer");
    let preflight = preflight.send().await.unwrap();
    let allowed = preflight.headers()["access-control-allow-headers"].to_str().unwrap();
    for header in ["x-admin-api-key", "x-user-id", "x-api-key", "prefer", "content-type"] {
        assert!(allowed.split(',').any(|name| name.trim() == header), "{header}: {allowed}");
    }
}
