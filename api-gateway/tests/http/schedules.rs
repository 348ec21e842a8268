//! Schedules, as far as the gateway has to do with them: nobody submits their jobs here.

use chrono::{DateTime, Utc};
use events::{Clock as _, Position, SystemClock};
use record::EventFilter;
use reqwest::Method;
use serde_json::{Value, json};

use super::world::{BLUE, World, error, json as body_of};

fn nightly() -> Value {
    json!({
        "name": "nightly", "cron": "30 2 * * *", "timezone": "europe/berlin", "overlap": "queue", "catch_up": "last",
        "job": {"image": "alpine", "command": "make", "env": {"TOKEN": "hunter2-and-more"}}
    })
}

#[tokio::test]
async fn a_schedule_is_made_changed_paused_resumed_triggered_and_deleted() {
    let world = World::with(|_| {}, false).await;
    let made = world.post("/schedules", nightly(), 201).await;
    assert_eq!(
        (&made["state"], &made["timezone"], &made["overlap"], &made["catch_up"], &made["waiting"]),
        (&json!("active"), &json!("Europe/Berlin"), &json!("queue"), &json!("last"), &json!(0))
    );
    let next: Vec<DateTime<Utc>> =
        made["next"].as_array().unwrap().iter().map(|at| at.as_str().unwrap().parse().unwrap()).collect();
    assert!(next.len() == 5 && next.is_sorted() && next[0] > SystemClock.now(), "{next:?}");
    assert_eq!(made["job"]["env"], json!({"TOKEN": "****"}));
    let path = format!("/schedules/{}", made["id"].as_str().unwrap());
    assert_eq!(world.get(&path).await["name"], "nightly");
    assert_eq!(world.get("/schedules/nightly").await["id"], made["id"], "by its name, too");
    assert_eq!(world.get("/schedules").await["schedules"].as_array().unwrap().len(), 1);
    assert_eq!(error(world.ask(Method::POST, "/schedules").json(&nightly()), 409).await, "CONFLICT");

    // Whoever made it made its name, and the length of time is counted on.
    let change = json!({"every": "1h", "job": {"image": "alpine", "command": "true"}});
    let changed = body_of(world.ask(Method::PUT, &path).json(&change), 200).await;
    assert_eq!((&changed["name"], &changed["every"]), (&json!("nightly"), &json!("1h0m0s")));
    assert_eq!((changed.get("cron"), &changed["overlap"]), (None, &json!("skip")));
    let again = body_of(world.ask(Method::PUT, "/schedules/nightly").json(&change), 200).await;
    assert_eq!(again["next"], changed["next"]);
    let wrong = json!({"cron": "0 0 30 2 *", "job": {"image": "alpine", "command": "true"}});
    assert_eq!(error(world.ask(Method::PUT, &path).json(&wrong), 400).await, "BAD_REQUEST");

    for _ in 0..2 {
        let paused = world.post(&format!("{path}/pause"), json!({}), 200).await;
        assert_eq!((&paused["state"], &paused["next"]), (&json!("paused"), &json!([])));
    }
    let triggered = world.post(&format!("{path}/trigger"), json!({}), 202).await;
    assert!(triggered["job"].as_str().unwrap().parse::<events::JobId>().is_ok(), "{triggered}");
    assert_eq!(world.get(&path).await["waiting"], 1);
    for _ in 0..2 {
        let resumed = world.post(&format!("{path}/resume"), json!({}), 200).await;
        assert_eq!((&resumed["state"], resumed["next"].as_array().unwrap().len()), (&json!("active"), 5));
    }
    assert_eq!(world.delete(&path).await, json!({"status": "deleted"}));
    assert_eq!(error(world.ask(Method::GET, &path), 404).await, "NOT_FOUND");
    assert_eq!(world.get("/schedules").await, json!({"schedules": []}));

    // No value of a variable is in the record.
    let frames = world.store.read(&EventFilter::default(), Position::ZERO, 100).await.unwrap();
    assert!(frames.len() >= 7);
    for frame in frames {
        let header = String::from_utf8_lossy(&frame.header).into_owned();
        assert!(!header.contains("hunter2"), "{header}");
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_run_is_refused_when_its_schedule_is_saved() {
    let world = World::with(|_| {}, false).await;
    for (job, status) in [
        (json!({}), 400),
        (json!({"image": "alpine"}), 400),
        (json!({"command": "true", "image": "b c"}), 400),
        (json!({"command": "true", "image": null}), 400),
        (json!({"command": "true", "mode": "maybe"}), 400),
        (json!({"command": 5}), 400),
        (json!({"command": "true", "timeout": "soon"}), 400),
        (json!({"command": "true", "deadline": "0s"}), 400),
        (json!({"command": "true", "priority": 101}), 400),
        (json!({"command": "true", "concurrency_limit": 0}), 400),
        (json!({"command": "true", "retries": {"max": 1000}}), 400),
        (json!({"command": "true", "memory_mb": 1}), 400),
        (json!({"command": "true", "env": {"A=B": "c"}}), 400),
        (json!({"command": "true", "secrets": {"A": "x"}}), 400),
        (json!({"command": "true", "labels": {"": "x"}}), 400),
        (json!({"command": "true", "schedule": "another"}), 400),
        (json!({"command": "true", "no such field": 1}), 400),
        (json!({"command": "x".repeat(80 << 10)}), 400),
        (json!({"command": "true", "template": "none"}), 404),
    ] {
        let body = json!({"name": "a", "cron": "@daily", "job": job});
        let response = world.ask(Method::POST, "/schedules").json(&body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{job}");
    }
    assert_eq!(world.get("/schedules").await, json!({"schedules": []}));
}

#[tokio::test]
async fn another_tenants_schedule_does_not_exist() {
    let world = World::start().await;
    let made = world.post("/schedules", nightly(), 201).await;
    for named in [made["id"].as_str().unwrap(), "nightly", "sched-00000000000000000000000000", "rubbish"] {
        for (method, path) in [
            (Method::GET, format!("/schedules/{named}")),
            (Method::PUT, format!("/schedules/{named}")),
            (Method::DELETE, format!("/schedules/{named}")),
            (Method::POST, format!("/schedules/{named}/pause")),
            (Method::POST, format!("/schedules/{named}/resume")),
            (Method::POST, format!("/schedules/{named}/trigger")),
        ] {
            let request = world.ask_as(BLUE, method.clone(), &path).json(&nightly());
            assert_eq!(error(request, 404).await, "NOT_FOUND", "{method} {path}");
        }
    }
    let list = body_of(world.ask_as(BLUE, Method::GET, "/schedules"), 200).await;
    assert_eq!(list, json!({"schedules": []}));
    // Its name is free for others.
    body_of(world.ask_as(BLUE, Method::POST, "/schedules").json(&nightly()), 201).await;
    assert_eq!(world.get("/schedules/nightly").await["id"], made["id"]);
}

#[tokio::test]
async fn a_tenant_has_so_many_schedules_and_no_more() {
    let world = World::with(|config| config.max_schedules_per_tenant = 2, false).await;
    let named = |name: &str| {
        let mut schedule = nightly();
        schedule["name"] = name.into();
        schedule
    };
    let request = |name: &str| world.ask(Method::POST, "/schedules").json(&named(name));
    body_of(request("a"), 201).await;
    body_of(request("b"), 201).await;
    assert_eq!(error(request("c"), 409).await, "CONFLICT");
    body_of(world.ask_as(BLUE, Method::POST, "/schedules").json(&named("c")), 201).await;
    world.delete("/schedules/a").await;
    body_of(request("c"), 201).await;
}
