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

#[tokio::test]
async fn a_long_reply_is_the_same_as_a_short_one_and_is_not_collected() {
    let world = World::start().await;
    let sandbox = world.sandbox().await;
    let reply = world.exec(&sandbox, "nuls", 200).await;
    let expected = format!("{}\u{1f600}\u{fffd}", "\0".repeat(120_000));
    assert!(reply["stdout"] == expected.as_str(), "{} characters", reply["stdout"].as_str().unwrap().len());
    assert_eq!(
        (&reply["stderr"], &reply["exit_code"], &reply["duration"]),
        (&json!("\"stdout\":\"\n"), &json!(0), &json!("1.5ms"))
    );
    assert!(reply["exec_id"].as_str().unwrap().starts_with("ex-"));
    let body = json!({"command": "nuls"});
    let request = world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&body);
    let answer = request.send().await.unwrap();
    assert!(answer.headers().get("content-length").is_none(), "it was put together before it was sent");
    assert_eq!(answer.headers()["content-type"], "application/json");
}

#[tokio::test]
async fn execs_are_counted_until_they_end_also_those_that_never_begin() {
    let world = World::with(
        |config| (config.limits.tenant.execs, config.limits.tenant.execs_per_sandbox) = (5, 3),
        true,
    )
    .await;
    let (first, second) = (world.sandbox().await, world.sandbox().await);
    let detach = async |sandbox: &str| {
        let body = json!({"command": "hang", "detach": true});
        world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&body).send().await.unwrap()
    };
    for _ in 0..3 {
        assert_eq!(detach(&first).await.status(), 202);
        world.exec(&second, "hello", 200).await;
    }
    let body = limited(detach(&first).await, "limits.tenant.execs_per_sandbox").await;
    assert!(body["message"].as_str().unwrap().contains("has 3 execs"), "{body}");
    // What has ended does not count, however often it is run.
    for _ in 0..20 {
        world.exec(&second, "hello", 200).await;
    }
    for _ in 0..2 {
        assert_eq!(detach(&second).await.status(), 202);
    }
    limited(detach(&second).await, "limits.tenant.execs").await;
    let blue = spawn(&world, BLUE, json!({})).await.json::<Value>().await.unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let request = world.ask_as(BLUE, Method::POST, &format!("/sandboxes/{blue}/exec"));
    assert_eq!(request.json(&json!({"command": "hello"})).send().await.unwrap().status(), 200);
    world.delete(&format!("/sandboxes/{first}")).await;
    assert_eq!(detach(&second).await.status(), 202, "with a sandbox its execs end");
    // Nobody waits for these any more, and their commands are on their way all the same.
    let world = World::with(|config| config.limits.tenant.execs = 4, true).await;
    let sandbox = world.sandbox().await;
    for _ in 0..4 {
        let body = json!({"command": "slow slow", "stream": true});
        let path = format!("/sandboxes/{sandbox}/exec");
        let asked = world.ask(Method::POST, &path).json(&body);
        let answer = asked.timeout(Duration::from_millis(100)).send().await;
        drop(answer);
    }
    let body = json!({"command": "hello"});
    let answer =
        world.ask(Method::POST, &format!("/sandboxes/{sandbox}/exec")).json(&body).send().await.unwrap();
    limited(answer, "limits.tenant.execs").await;
}

#[tokio::test]
async fn who_writes_too_much_begins_nothing_more_for_a_while() {
    let world = World::with(|config| config.limits.tenant.log_bytes = 300_000, true).await;
    let sandbox = world.sandbox().await;
    world.exec(&sandbox, "flood", 200).await;
    let path = format!("/sandboxes/{sandbox}/exec");
    for n in 0.. {
        let answer = world.ask(Method::POST, &path).json(&json!({"command": "hello"})).send().await.unwrap();
        if answer.status() == 429 {
            limited(answer, "limits.tenant.log_per_hour").await;
            break;
        }
        // The end of the flood comes from the record to the one that counts.
        assert!(n < 100, "{}", answer.status());
    }
}

#[tokio::test]
async fn streams_have_a_limit_below_that_of_requests() {
    let world = World::with(|config| config.limits.tenant.streams = 2, true).await;
    let sandbox = world.sandbox().await;
    let _socket = Raw::open(&world, "/events/ws", None, "").await;
    let mut events = Raw::connect(&world, None).await;
    events.ask("GET", "/events", "", b"").await;
    assert!(events.head.starts_with("HTTP/1.1 200"), "{}", events.head);
    limited(world.ask(Method::GET, "/events").send().await.unwrap(), "limits.tenant.streams").await;
    let body = json!({"command": "hello", "stream": true});
    let path = format!("/sandboxes/{sandbox}/exec");
    limited(world.ask(Method::POST, &path).json(&body).send().await.unwrap(), "limits.tenant.streams").await;
    assert_eq!(
        world.get(&format!("/sandboxes/{sandbox}/execs")).await["execs"],
        json!([]),
        "nothing was run"
    );
    world.exec(&sandbox, "hello", 200).await;
    let blue = world.ask_as(BLUE, Method::GET, "/events").send().await.unwrap();
    assert_eq!(blue.status(), 200);
}

#[tokio::test]
async fn rates_are_of_a_tenant_and_of_a_client() {
    let world = World::with(
        |config| (config.limits.tenant.requests_per_minute, config.limits.tenant.burst) = (1, 5),
        false,
    )
    .await;
    for _ in 0..5 {
        world.get("/sandboxes").await;
    }
    let refused = world.ask(Method::GET, "/sandboxes").send().await.unwrap();
    let headers = refused.headers().clone();
    assert_eq!(
        (&headers["x-ratelimit-limit"], &headers["x-ratelimit-remaining"]),
        (&"1".parse().unwrap(), &"0".parse().unwrap())
    );
    limited(refused, "limits.tenant.requests_per_minute").await;
    for key in [BLUE, OPERATOR, OPERATOR, OPERATOR, OPERATOR, OPERATOR, OPERATOR] {
        assert_eq!(world.ask_as(key, Method::GET, "/sandboxes").send().await.unwrap().status(), 200);
    }
    let rate = api_gateway::RateLimit { by: api_gateway::RateBy::Owner, a_minute: 1, burst: 2 };
    let world = World::with(|config| config.limits.rate = rate, false).await;
    let ask = async |user: &str| {
        world.ask(Method::GET, "/sandboxes").header("X-User-ID", user).send().await.unwrap()
    };
    for _ in 0..2 {
        assert_eq!(ask("alice").await.status(), 200);
    }
    limited(ask("alice").await, "limits.rate.requests_per_minute").await;
    assert_eq!(ask("bob").await.status(), 200);
}

#[tokio::test]
async fn one_tenants_verifications_leave_the_operator_and_others_their_turn() {
    let world = std::sync::Arc::new(World::start().await);
    let sandbox = world.sandbox().await;
    for _ in 0..20 {
        world.exec(&sandbox, "flood", 200).await;
    }
    let loops: Vec<_> = (0..8)
        .map(|_| {
            let world = std::sync::Arc::clone(&world);
            tokio::spawn(async move {
                loop {
                    let answer = world.ask(Method::GET, "/audit/verify").send().await.unwrap();
                    let _ = answer.bytes().await;
                }
            })
        })
        .collect();
    for key in [OPERATOR, BLUE] {
        for _ in 0..5 {
            let report = super::world::json(world.ask_as(key, Method::GET, "/audit/verify"), 200).await;
            assert_eq!(report["ok"], true, "{report}");
        }
    }
    let exported = world.ask_as(BLUE, Method::GET, "/audit/export").send().await.unwrap();
    assert!(exported.text().await.unwrap().contains("\"end\""), "it is whole");
    loops.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_box_that_no_machine_has_room_for_is_refused_with_the_numbers() {
    let world = World::start().await;
    for body in [json!({"memory_mb": 65536}), json!({"memory_mb": 65536, "vcpus": 64})] {
        let answer = spawn(&world, RED, body).await;
        let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
        assert_eq!((status.as_u16(), &body["code"]), (400, &json!("BAD_REQUEST")), "{body}");
        let message = body["message"].as_str().unwrap();
        assert!(message.contains("memory_mb 65536") && message.contains("up to 32768 and 64"), "{message}");
    }
    assert_eq!(spawn(&world, RED, json!({"memory_mb": 32768, "vcpus": 64})).await.status(), 201);
    assert_eq!(world.get("/sandboxes").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn spawns_of_one_tenant_are_not_all_before_anothers() {
    let world = std::sync::Arc::new(World::with(|config| config.limits.tenant.spawns = 2, true).await);
    let reds: Vec<_> = (0..20)
        .map(|_| {
            let world = std::sync::Arc::clone(&world);
            tokio::spawn(async move { spawn(&world, RED, json!({"image": "slow:image"})).await.status() })
        })
        .collect();
    let has = async || world.get("/sandboxes").await.as_array().unwrap().len();
    while has().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(spawn(&world, BLUE, json!({})).await.status(), 201);
    let made = has().await;
    assert!(made < 12, "{made} of 20 were before the other tenant's one");
    for red in reds {
        assert_eq!(red.await.unwrap(), 201, "each has its turn");
    }
}
