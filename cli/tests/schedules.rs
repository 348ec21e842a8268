//! Schedules: what is due is submitted once, also when the server is killed around its time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::time::Duration;

use chrono::TimeDelta;
use events::{Clock as _, JobId, SystemClock};
use serde_json::{Value, json};
use support::api::Api;
use support::eventually;
use support::serve::Serve;

const PATIENCE: Duration = Duration::from_secs(60);

fn job() -> Value {
    json!({"image": "stacyvm/base:local", "command": "true", "labels": {"team": "a"}})
}

/// A schedule that is due once, in so many seconds.
async fn once(api: &Api, name: &str, seconds: i64) -> Value {
    let at = SystemClock.now() + TimeDelta::seconds(seconds);
    let body = json!({"name": name, "at": at.to_rfc3339(), "job": job()});
    let (status, made) = api.post("/schedules", body).await;
    assert_eq!(status, 201, "{made}");
    made
}

/// All events of these types.
async fn events(api: &Api, types: &str) -> Vec<Value> {
    let url = api.url(&format!("/events?after=0&follow=false&format=ndjson&types={types}"));
    let text = api.http.get(url).send().await.unwrap().text().await.unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The jobs that a schedule has submitted.
async fn submitted(api: &Api, schedule: &Value) -> Vec<JobId> {
    let all = events(api, "job.submitted").await;
    let ours = all.iter().filter(|event| event["data"]["spec"]["schedule"] == schedule["id"]);
    ours.map(|event| event["data"]["job"].as_str().unwrap().parse().unwrap()).collect()
}

#[tokio::test]
async fn what_is_due_is_submitted_once_whenever_the_server_is_killed() {
    let mut serve = Serve::with_provider("bubblewrap").await;
    let schedules = [once(&serve.api, "a", 3).await, once(&serve.api, "b", 4).await];
    serve.kill_and_restart().await;
    for schedule in &schedules {
        let jobs = eventually("its job is submitted", PATIENCE, async || {
            Some(submitted(&serve.api, schedule).await).filter(|jobs| !jobs.is_empty())
        })
        .await;
        let path = format!("/schedules/{}", schedule["id"].as_str().unwrap());
        let (_, shown) = serve.api.get(&path).await;
        assert_eq!((&shown["state"], &shown["last_tick"]["outcome"]), (&json!("done"), &json!("submitted")));
        let job = jobs[0].to_string();
        assert_eq!((&shown["last_job"], &shown["last_tick"]["job"]), (&json!(job), &json!(job)));
    }
    // Nobody who comes later decides again.
    serve.kill_and_restart().await;
    let third = once(&serve.api, "c", 2).await;
    eventually("the next one is submitted", PATIENCE, async || {
        Some(submitted(&serve.api, &third).await).filter(|jobs| !jobs.is_empty())
    })
    .await;
    for schedule in schedules.iter().chain([&third]) {
        assert_eq!(submitted(&serve.api, schedule).await.len(), 1, "{schedule}");
    }
    let ticks = events(&serve.api, "schedule.ticked").await;
    assert_eq!(ticks.len(), 3, "{ticks:?}");
}

#[tokio::test]
async fn a_job_of_a_schedule_has_its_values_and_the_log_has_none() {
    let serve = Serve::with_provider("bubblewrap").await;
    let at = SystemClock.now() + TimeDelta::seconds(1);
    let job = json!({
        "image": "stacyvm/base:local",
        "command": "test \"$TOKEN\" = open-sesame-17 && test \"$PLAIN\" = shown-23",
        "secrets": {"TOKEN": "open-sesame-17"},
        "env": {"PLAIN": "shown-23"},
    });
    let (status, made) =
        serve.api.post("/schedules", json!({"name": "a", "at": at.to_rfc3339(), "job": job})).await;
    assert_eq!(status, 201, "{made}");
    let jobs = eventually("its job is submitted", PATIENCE, async || {
        Some(submitted(&serve.api, &made).await).filter(|jobs| !jobs.is_empty())
    })
    .await;
    let ended = eventually("its job has ended", PATIENCE, async || {
        let (_, job) = serve.api.get(&format!("/jobs/{}", jobs[0])).await;
        ["succeeded", "failed", "unknown"].contains(&job["state"].as_str()?).then_some(job)
    })
    .await;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    for event in events(&serve.api, "schedule.*,job.*,exec.*,sandbox.*").await {
        assert!(!event.to_string().contains("open-sesame-17"), "{event}");
    }
}
