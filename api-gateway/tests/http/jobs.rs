//! Jobs, as far as the gateway has to do with them: nobody drives them here, so they wait.

use std::collections::{BTreeMap, BTreeSet};

use events::{JobId, JobSecrets, Position};
use record::EventFilter;
use reqwest::Method;
use secrets::MasterKey;
use serde_json::{Value, json};

use super::world::{BLUE, RED, World, error, json as body_of};

fn make() -> Value {
    json!({"image": "alpine", "command": "make", "args": ["it's"], "env": {"TOKEN": "hunter2-plain"}, "labels": {"team": "a"}})
}

async fn keyed(world: &World, key: &str, body: &Value, status: u16) -> Value {
    body_of(world.ask(Method::POST, "/jobs").header("idempotency-key", key).json(body), status).await
}

fn id(job: &Value) -> String {
    job["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_job_is_durable_found_and_cancelled_while_it_waits_and_no_value_is_in_the_log() {
    let world = World::with(|_| {}, false).await;
    let mut body = make();
    body["secrets"] = json!({"PASSWORD": "swordfish"});
    body["command"] = json!("login swordfish");
    body["callback"] = json!({"url": "https://hooks.example.com/", "token": "untouched-token", "headers": {"X-A": "header-value"}});
    let job = world.post("/jobs", body, 202).await;
    assert_eq!(
        (&job["state"], &job["queue"], &job["attempts"]),
        (&json!("queued"), &json!("default"), &json!(0))
    );
    let path = format!("/jobs/{}", id(&job));
    let found = world.get(&path).await;
    assert_eq!((&found["state"], &found["position"]), (&json!("queued"), &json!(1)));
    assert_eq!(found["env_names"], json!(["PASSWORD", "TOKEN"]));
    assert_eq!(found["argv"][2].as_str().unwrap(), "login ********* 'it'\\''s'", "what is masked");
    assert_eq!(world.get(&format!("{path}/attempts")).await, json!({"attempts": []}));

    // What its driver has to know is sealed, and only the master key opens it.
    let job_id: JobId = id(&job).parse().unwrap();
    let sealed = world.log.sealed(job_id).await.unwrap().expect("its values are kept");
    let key = MasterKey::from_bytes([0; 32]);
    let context = JobSecrets::context(&"red".parse().unwrap(), job_id);
    let plain = key.open(JobSecrets::PURPOSE, context.as_bytes(), &sealed).unwrap();
    let secrets: JobSecrets = serde_json::from_slice(&plain).unwrap();
    assert_eq!(secrets.env.0["TOKEN"], "hunter2-plain");
    assert_eq!(secrets.callback_token.as_deref(), Some("untouched-token"));
    assert_eq!(secrets.spec.unwrap().command.argv[2], "login swordfish 'it'\\''s'");
    for frame in world.store.read(&EventFilter::default(), Position::ZERO, 100).await.unwrap() {
        let header = String::from_utf8_lossy(&frame.header).into_owned();
        for value in ["hunter2", "swordfish", "untouched-token", "header-value"] {
            assert!(!header.contains(value), "{header}");
        }
    }

    assert_eq!(error(world.ask_as(BLUE, Method::GET, &path), 404).await, "NOT_FOUND");
    assert_eq!(error(world.ask_as(BLUE, Method::POST, &format!("{path}/cancel")), 404).await, "NOT_FOUND");
    assert_eq!(error(world.ask(Method::POST, &format!("{path}/retry")), 409).await, "CONFLICT");
    let mut asked = BTreeSet::new();
    for _ in 0..3 {
        let cancelled = world.post(&format!("{path}/cancel"), json!({"grace": "1s"}), 202).await;
        asked.insert(cancelled["cancel_requested_at"].as_str().unwrap().to_owned());
    }
    assert_eq!(asked.len(), 1, "it was asked for once");
    let told = world.get(&format!("{path}/timeline")).await;
    let types: Vec<&str> =
        told["entries"].as_array().unwrap().iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["job.submitted", "job.cancel_requested"]);
    let at = told["entries"][0]["position"].as_u64().unwrap();
    assert!(world.get(&format!("{path}?at={at}")).await.get("cancel_requested_at").is_none(), "as it was");
    for attempt in ["last", "all"] {
        let answer =
            world.ask(Method::GET, &format!("{path}/output?attempt={attempt}")).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.text().await.unwrap()), (200, String::new()));
    }
    for (query, status) in [("attempt=1", 404), ("attempt=0", 400), ("attempt=all&offset=1", 400)] {
        body_of(world.ask(Method::GET, &format!("{path}/output?{query}")), status).await;
    }
    // Time is up, and it has not ended.
    assert_eq!(world.get(&format!("{path}?wait=50ms")).await["state"], "queued");
}

#[tokio::test]
async fn one_key_from_fifty_clients_at_two_gateways_is_one_job_with_one_answer() {
    let world = std::sync::Arc::new(World::with(|_| {}, false).await);
    let other = world.another_gateway(|_| {}).await;
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..50 {
        let world = std::sync::Arc::clone(&world);
        clients.spawn(async move {
            let request = if n % 2 == 0 {
                world.ask(Method::POST, "/jobs")
            } else {
                reqwest::Client::new().post(format!("http://{other}/api/v1/jobs")).header("x-api-key", RED)
            };
            let response = request.header("idempotency-key", "run-17").json(&make()).send().await.unwrap();
            (response.status().as_u16(), response.text().await.unwrap())
        });
    }
    let answers: BTreeSet<(u16, String)> = clients.join_all().await.into_iter().collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let (status, text) = answers.into_iter().next().unwrap();
    assert_eq!(status, 202, "{text}");
    assert_eq!(world.get("/jobs").await["jobs"].as_array().unwrap().len(), 1);

    // Whatever becomes of it, the answer stays; another body is a conflict, another tenant's key another job.
    let job: Value = serde_json::from_str(&text).unwrap();
    world.post(&format!("/jobs/{}/cancel", id(&job)), json!({}), 202).await;
    assert_eq!(keyed(&world, "run-17", &make(), 202).await, job);
    let another = json!({"image": "alpine", "command": "other"});
    assert_eq!(keyed(&world, "run-17", &another, 409).await["code"], "CONFLICT");
    let blue = world.ask_as(BLUE, Method::POST, "/jobs").header("idempotency-key", "run-17").json(&another);
    assert_ne!(id(&body_of(blue, 202).await), id(&job));
    let found = world.get("/jobs?idempotency_key=run-17").await;
    assert_eq!(found["jobs"][0]["id"], job["id"]);
    assert_eq!(world.get("/jobs?idempotency_key=run-18").await, json!({"jobs": []}));
}

#[tokio::test]
async fn of_two_bodies_that_race_for_one_key_one_is_believed_with_its_own_values() {
    let world = std::sync::Arc::new(World::with(|_| {}, false).await);
    let mut clients = tokio::task::JoinSet::new();
    for n in 0..8 {
        let world = std::sync::Arc::clone(&world);
        clients.spawn(async move {
            let value = format!("value-{}", n % 2);
            let body = json!({"image": "alpine", "command": value, "env": {"A": value}});
            let request = world.ask(Method::POST, "/jobs").header("idempotency-key", "k").json(&body);
            (request.send().await.unwrap().status().as_u16(), value)
        });
    }
    let mut statuses: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    for (status, value) in clients.join_all().await {
        statuses.entry(value).or_default().insert(status);
    }
    let job = world.get("/jobs").await["jobs"][0].clone();
    let winner = job["argv"][2].as_str().unwrap().to_owned();
    assert_eq!(statuses.remove(&winner), Some(BTreeSet::from([202])));
    assert_eq!(statuses.into_values().collect::<Vec<_>>(), [BTreeSet::from([409])]);
    let job: JobId = id(&job).parse().unwrap();
    let sealed = world.log.sealed(job).await.unwrap().unwrap();
    let context = JobSecrets::context(&"red".parse().unwrap(), job);
    let plain =
        MasterKey::from_bytes([0; 32]).open(JobSecrets::PURPOSE, context.as_bytes(), &sealed).unwrap();
    assert_eq!(serde_json::from_slice::<JobSecrets>(&plain).unwrap().env.0["A"], winner);
}

#[tokio::test]
async fn jobs_are_listed_in_stable_pages_and_a_batch_names_its_own() {
    let world = World::with(|_| {}, false).await;
    let jobs: Vec<Value> = (0..25)
        .map(|n| {
            let mut job = json!({"image": "alpine", "command": "true", "idempotency_key": format!("k{n}"), "queue": if n % 5 == 0 { "slow" } else { "fast" }});
            match n {
                3 => job["needs"] = json!([{"job": "k2", "if": "finished"}]),
                4 => job["needs"] = json!([{"job": "k5"}]),
                6 => job["command"] = Value::Null,
                _ => {}
            }
            job
        })
        .collect();
    let answer = world.post("/jobs/batch", json!({ "jobs": jobs }), 200).await;
    let answers = answer["jobs"].as_array().unwrap();
    let statuses: Vec<u64> = answers.iter().map(|answer| answer["status"].as_u64().unwrap()).collect();
    let wrong: Vec<usize> = (0..25).filter(|n| statuses[*n] != 202).collect();
    assert_eq!((wrong, statuses[4], statuses[6]), (vec![4, 6], 400, 400), "{answer}");
    assert_eq!(world.post("/jobs/batch", json!({ "jobs": jobs }), 200).await, answer, "once more");
    // The same job alone, by the header.
    let alone = json!({"image": "alpine", "command": "true", "queue": "fast"});
    assert_eq!(id(&keyed(&world, "k1", &alone, 202).await), id(&answers[1]));

    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/jobs?limit=7{after}")).await;
        seen.extend(page["jobs"].as_array().unwrap().iter().map(id));
        let Some(next) = page["next_after"].as_str() else { break };
        after = format!("&after={next}");
        // What comes in between changes nothing of what was there.
        world.post("/jobs", make(), 202).await;
    }
    assert!(seen.is_sorted());
    let made: BTreeSet<String> = answers.iter().filter(|it| it["status"] == 202).map(id).collect();
    assert!(made.iter().all(|job| seen.contains(job)), "{seen:?}");
    let count =
        async |filter: &str| world.get(&format!("/jobs?{filter}")).await["jobs"].as_array().unwrap().len();
    assert_eq!(count("queue=slow").await, 5);
    assert_eq!(count("state=waiting").await, 1);
    assert_eq!(count(&format!("needs={}", id(&answers[2]))).await, 1);
    assert_eq!(count("label=team%3Da&created_after=2020-01-01T00:00:00Z&limit=1").await, 1);
    assert_eq!(count("state=succeeded").await, 0);
    assert_eq!(body_of(world.ask_as(BLUE, Method::GET, "/jobs"), 200).await, json!({"jobs": []}));
}

#[tokio::test]
async fn a_job_that_cannot_be_run_is_refused_and_leaves_nothing() {
    let world = World::with(|_| {}, false).await;
    let nobody = "job-01jd2x5c0pe3tt4m1q5a8z0v9k";
    let file = |content: &str| json!([{"path": "/a", "content": content}]);
    let with = |field: &str, value: Value| {
        let mut job = json!({"image": "alpine", "command": "true"});
        job[field] = value;
        job
    };
    for (job, status) in [
        (json!({}), 400),
        (json!({"image": "alpine"}), 400),
        (with("image", json!("b c")), 400),
        (with("provider", json!("nowhere")), 404),
        (with("template", json!("none")), 404),
        (with("sandbox", json!("sb-01jd2x5c0pe3tt4m1q5a8z0v9k")), 404),
        (with("mode", json!("maybe")), 400),
        (with("timeout", json!("soon")), 400),
        (with("deadline", json!("0s")), 400),
        (with("deadline", json!("9000h")), 400),
        (with("run_at", json!("tomorrow")), 400),
        (with("run_at", json!("2999-01-01T00:00:00Z")), 400),
        (with("priority", json!(101)), 400),
        (with("priority", json!(-4_000_000_000_i64)), 400),
        (with("queue", json!("../x")), 400),
        (with("on_lost", json!("maybe")), 400),
        (with("concurrency_limit", json!(1)), 400),
        (with("retries", json!({"max": 101})), 400),
        (with("retries", json!({"factor": 0.5})), 400),
        (with("retries", json!({"on": ["bored"]})), 400),
        (with("retries", json!({"on_exit_codes": [256]})), 400),
        (with("needs", json!([{"job": nobody}])), 400),
        (with("needs", json!([{"job": "x"}])), 400),
        (with("needs", json!(vec![json!({"job": nobody}); 257])), 400),
        (with("labels", json!({"": "x"})), 400),
        (with("artifacts", json!([""])), 400),
        (with("files", json!([{"path": "/a"}])), 400),
        (with("files", json!([{"path": "../../a", "content": ""}])), 400),
        (with("files", json!([{"path": "/a", "content": "a", "content_b64": "YQ=="}])), 400),
        (with("files", json!([{"path": "/a", "content_b64": "?"}])), 400),
        (with("files", json!([{"path": "/a", "content": "", "mode": "rwx"}])), 400),
        (with("files", file(&"x".repeat((64 << 10) + 1))), 413),
        (with("stdin", json!("x".repeat((64 << 10) + 1))), 413),
        (with("heartbeat_timeout", json!("1ms")), 400),
        (with("keep_sandbox", json!("25h")), 400),
        (with("callback", json!({})), 400),
        (with("callback", json!({"url": "http://127.0.0.1/"})), 400),
        (with("callback", json!({"url": "https://a.example/", "headers": {"Host": "b"}})), 400),
        (with("callback", json!({"url": "https://a.example/", "headers": {"X": "a\r\nB: c"}})), 400),
        (with("idempotency_key", json!("k")), 400),
    ] {
        let answer = body_of(world.ask(Method::POST, "/jobs").json(&job), status).await;
        assert!(answer["message"].as_str().is_some_and(|message| message.len() < 400), "{answer}");
    }
    let strict = world.ask(Method::POST, "/jobs").header("prefer", "handling=strict");
    let unknown = body_of(strict.json(&with("retries", json!({"maxx": 1}))), 400).await;
    assert!(unknown["message"].as_str().unwrap().contains("retries.maxx"), "{unknown}");
    assert_eq!(world.get("/jobs").await, json!({"jobs": []}));
    assert_eq!(world.store.read(&EventFilter::default(), Position::ZERO, 100).await.unwrap().len(), 0);
}
