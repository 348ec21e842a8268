//! The main job, end to end: the same against one process and SQLite, and against four and Postgres.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use serde_json::json;
use support::api::{Api, Streamed};
use support::serve::Serve;
use support::split::Split;

const PROGRAM: &str = "import sys\nfor i in range(5):\n    print('line', i, flush=True)\nopen('/workspace/result.bin','wb').write(bytes(range(256)))\nsys.exit(3)\n";

/// Writes a program, runs it, streams it, reads its result file, reads everything again from the record.
async fn the_job(api: &Api, provider: &str) {
    let sandbox = api.spawn(json!({"image": "alpine:latest", "provider": provider, "ttl": "5m"})).await;
    let path = format!("/sandboxes/{sandbox}/files?path=/workspace/program.py");
    let put = api.http.put(api.url(&path)).body(PROGRAM).send().await.unwrap();
    assert_eq!(put.status().as_u16(), 200, "{}", put.text().await.unwrap());

    let streamed =
        Streamed::read(api.start_stream(&sandbox, "python3 /workspace/program.py").await, |_| {}).await;
    let expected: String = (0..5).map(|i| format!("line {i}\n")).collect();
    assert_eq!(String::from_utf8_lossy(&streamed.stdout), expected);
    assert_eq!(streamed.exit_code, Some(3));

    let path = format!("/sandboxes/{sandbox}/files?path=/workspace/result.bin");
    let read = api.http.get(api.url(&path)).send().await.unwrap();
    assert_eq!(read.bytes().await.unwrap(), (0..=255u8).collect::<Vec<_>>());

    let short = api.exec(&sandbox, "echo out; echo err >&2; exit 7").await;
    assert_eq!(
        (&short["exit_code"], &short["stdout"], &short["stderr"]),
        (&json!(7), &json!("out\n"), &json!("err\n"))
    );

    assert_eq!(api.destroy(&sandbox).await, 200);
    assert_eq!(api.get(&format!("/sandboxes/{sandbox}")).await.0, 404);

    // The sandbox is gone; the record is not.
    let exec = streamed.exec.unwrap();
    let mut replayed = Vec::new();
    api.follow(&exec, "stdout", 0, &mut replayed).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&replayed), expected);
    let mut middle = Vec::new();
    api.follow(&exec, "stdout", 7, &mut middle).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&middle), expected[7..]);
    let (status, state) = api.get(&format!("/execs/{exec}")).await;
    assert_eq!(status, 200);
    assert_eq!(state["exit_code"], 3, "{state}");
}

#[tokio::test]
async fn the_job_runs_on_docker_in_one_process() {
    let serve = Serve::start().await;
    the_job(&serve.api, "docker").await;
    assert!(serve.containers().is_empty());
}

#[tokio::test]
async fn the_job_runs_on_bubblewrap_in_one_process() {
    let serve = Serve::with_provider("bubblewrap").await;
    the_job(&serve.api, "bubblewrap").await;
}

#[tokio::test]
async fn the_job_runs_on_docker_in_four_processes_on_postgres() {
    let split = Split::start().await;
    the_job(&split.api, "docker").await;
}

#[tokio::test]
async fn a_server_that_is_told_to_stop_ends_well_and_takes_nothing_along() {
    let mut serve = Serve::start().await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let status = serve.process.terminate();
    assert!(status.success(), "{}", serve.process.log_text());
    assert_eq!(serve.containers(), std::slice::from_ref(&sandbox));
    serve.kill_and_restart().await;
    assert_eq!(serve.api.exec(&sandbox, "echo still here").await["stdout"], "still here\n");
}
