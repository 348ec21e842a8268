//! One tenant that wants everything, and another that wants its own.

use std::time::Duration;

use api_gateway::TenantLimits;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::raw::Raw;
use super::world::{BLUE, OPERATOR, RED, World};

/// The body of a refusal for this limit, which says when to come again.
async fn limited(response: Response, limit: &str) -> Value {
    let headers = response.headers().clone();
    let (status, body) = (response.status(), response.json::<Value>().await.unwrap());
    assert_eq!((status.as_u16(), &body["code"]), (429, &json!("RESOURCE_LIMIT")), "{body}");
    assert_eq!(headers["x-limit"], limit, "{body}");
    assert!(headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() > 0);
    body
}

async fn spawn(world: &World, key: &str, body: Value) -> Response {
    world.ask_as(key, Method::POST, "/sandboxes").json(&body).send().await.unwrap()
}

#[tokio::test]
async fn a_tenant_has_no_more_sandboxes_than_it_may_however_it_asks() {
    let world = World::with(|config| config.limits.tenant.sandboxes = 3, true).await;
    let asked = futures::future::join_all((0..12).map(|_| spawn(&world, RED, json!({})))).await;
    let (made, refused): (Vec<_>, Vec<_>) = asked.into_iter().partition(|answer| answer.status() == 201);
    assert_eq!((made.len(), refused.len()), (3, 9));
    for answer in refused {
        let body = limited(answer, "limits.tenant.sandboxes").await;
        assert!(body["message"].as_str().unwrap().contains("may have 3"), "{body}");
    }
    let admission = world.post("/sandboxes/admission", json!({}), 200).await;
    assert_eq!(
        (
            &admission["allowed"],
            &admission["reason"],
            &admission["active_sandboxes"],
            &admission["max_sandboxes"]
        ),
        (&json!(false), &json!("max_sandboxes"), &json!(3), &json!(3))
    );
    assert_eq!(spawn(&world, BLUE, json!({})).await.status(), 201, "another tenant has its own");
    let id =
        made.into_iter().next().unwrap().json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    world.delete(&format!("/sandboxes/{id}")).await;
    assert_eq!(spawn(&world, RED, json!({})).await.status(), 201, "what has ended does not count");
}

#[tokio::test]
async fn cpus_memory_and_owners_are_counted_too_and_a_tenant_can_have_limits_of_its_own() {
    let world = World::with(
        |config| {
            let red = TenantLimits {
                memory_mib: 1000,
                cpu_millis: 3000,
                sandboxes_per_owner: 1,
                ..TenantLimits::default()
            };
            config.limits.tenants.insert("red".parse().unwrap(), red);
        },
        true,
    )
    .await;
    assert_eq!(
        spawn(&world, RED, json!({"memory_mb": 600, "vcpus": 2, "owner_id": "alice"})).await.status(),
        201
    );
    let body = limited(spawn(&world, RED, json!({"memory_mb": 401})).await, "limits.tenant.memory_mb").await;
    assert!(body["message"].as_str().unwrap().contains("600 of the 1000 MiB"), "{body}");
    let body =
        limited(spawn(&world, RED, json!({"memory_mb": 8, "vcpus": 1.5})).await, "limits.tenant.vcpus").await;
    assert!(body["message"].as_str().unwrap().contains("2 of the 3 CPUs"), "{body}");
    let again = json!({"memory_mb": 8, "vcpus": 0.1, "owner_id": "alice"});
    limited(spawn(&world, RED, again).await, "limits.tenant.sandboxes_per_owner").await;
    assert_eq!(
        spawn(&world, RED, json!({"memory_mb": 400, "vcpus": 1, "owner_id": "bob"})).await.status(),
        201
    );
    assert_eq!(spawn(&world, BLUE, json!({"memory_mb": 2000, "vcpus": 4})).await.status(), 201);
}

#[tokio::test]
async fn silent_connections_are_in_nobodys_way() {
    let world = World::with(
        |config| {
            (config.limits.connections, config.limits.connections_per_address) = (16, 12);
            config.limits.reserved_connections = 2;
        },
        true,
    )
    .await;
    let mut silent = Vec::new();
    for n in 0..100 {
        let mut raw = Raw::connect(&world, None).await;
        // Some say a little.
        if n % 2 == 0 {
            raw.write(b"GET /api/v1/health HTTP/1.1\r\nHo").await;
        }
        silent.push(raw);
        if n % 20 == 19 {
            assert_eq!(world.ask_bare(Method::GET, "/ready").send().await.unwrap().status(), 200);
            world.get("/sandboxes").await;
        }
    }
    world.sandbox().await;
}

#[tokio::test]
async fn when_all_are_busy_health_and_operators_get_through_and_others_hear_why() {
    let world = World::with(
        |config| {
            (config.limits.connections, config.limits.reserved_connections) = (8, 4);
        },
        false,
    )
    .await;
    let mut busy = Vec::new();
    for _ in 0..8 {
        let mut raw = Raw::connect(&world, None).await;
        raw.ask("GET", "/events", "", b"").await;
        assert!(raw.head.starts_with("HTTP/1.1 200"), "{}", raw.head);
        busy.push(raw);
    }
    for path in ["/ready", "/live", "/health"] {
        assert_eq!(world.ask_bare(Method::GET, path).send().await.unwrap().status(), 200, "{path}");
    }
    let operator = world.ask_as(OPERATOR, Method::GET, "/sandboxes").send().await.unwrap();
    assert_eq!(operator.status(), 200);
    for key in [RED, BLUE] {
        let refused = world.ask_as(key, Method::GET, "/sandboxes").send().await.unwrap();
        assert_eq!(refused.headers()["connection"], "close");
        limited(refused, "limits.connections").await;
    }
    busy.pop();
    for _ in 0..600 {
        // The end of a connection takes a moment to be seen.
        if world.ask(Method::GET, "/sandboxes").send().await.unwrap().status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a place that is free again is not given away");
}

#[tokio::test]
async fn a_tenant_and_a_key_have_only_so_many_requests_under_way() {
    for limit in ["limits.tenant.requests", "limits.requests_per_key"] {
        let world = World::with(
            |config| match limit {
                "limits.tenant.requests" => config.limits.tenant.requests = 3,
                _ => config.limits.requests_per_key = 3,
            },
            false,
        )
        .await;
        let mut streams = Vec::new();
        for _ in 0..2 {
            let mut raw = Raw::connect(&world, None).await;
            raw.ask("GET", "/events", "", b"").await;
            streams.push(raw);
        }
        let socket = Raw::open(&world, "/events/ws", None, "").await;
        limited(world.ask(Method::GET, "/sandboxes").send().await.unwrap(), limit).await;
        let blue = world.ask_as(BLUE, Method::GET, "/sandboxes").send().await.unwrap();
        assert_eq!(blue.status(), 200);
        drop(socket);
        for n in 0.. {
            if world.ask(Method::GET, "/sandboxes").send().await.unwrap().status() == 200 {
                break;
            }
            assert!(n < 600, "{limit}: a WebSocket that has ended counts still");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn bodies_of_one_tenant_leave_room_for_those_of_another() {
    let world = World::with(
        |config| {
            (config.limits.memory_bytes, config.limits.tenant.memory_bytes) = (3 << 20, 2 << 20);
        },
        true,
    )
    .await;
    let sandbox = world.sandbox().await;
    // Of 1 MiB, and it does not end: all that the tenant may have, as it counts twice.
    let mut held = Raw::connect(&world, None).await;
    let head = format!(
        "POST /api/v1/sandboxes/{sandbox}/files HTTP/1.1\r\nHost: x\r\nX-API-Key: {RED}\r\nContent-Length: 1048576\r\n\r\n"
    );
    held.write(head.as_bytes()).await;
    held.write(&vec![b' '; 1 << 19]).await;
    // A small one does not need any of it.
    world.exec(&sandbox, "echo", 200).await;
    let pieces = || {
        let pieces = futures::stream::iter((0..40).map(|_| Ok::<_, std::io::Error>(" ".repeat(16 << 10))));
        reqwest::Body::wrap_stream(pieces)
    };
    let path = format!("/sandboxes/{sandbox}/files");
    // Of unknown length: it does not wait while it holds some itself.
    let refused = world.ask(Method::POST, &path).body(pieces()).send().await.unwrap();
    limited(refused, "limits.tenant.bodies").await;
    let whole = " ".repeat(40 * (16 << 10));
    let other = world.ask_as(BLUE, Method::POST, &path).body(whole.clone()).send().await.unwrap();
    assert_eq!(other.status(), 429, "of what all share there are 1 MiB left, and this takes 1.25");
    let small = " ".repeat(500 << 10);
    let other = world.ask_as(BLUE, Method::POST, &path).body(small).send().await.unwrap();
    assert_eq!(other.status(), 400, "no JSON, but there was room to read it");
    let operator = world.ask_as(OPERATOR, Method::POST, &path).body(whole.clone()).send().await.unwrap();
    assert_eq!(operator.status(), 400, "operators do not wait for others");
    drop(held);
    let waited = world.ask(Method::POST, &path).body(whole).send().await.unwrap();
    assert_eq!(waited.status(), 400, "what is given back is there again");
}
