//! Files that jobs left.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use events::{
    Actor, Clock as _, ContentHash, Event, EventData, EventId, JobAdmitted, JobArtifact, JobArtifactStored,
    JobId, JobState, JobSubmitted, ObjectOwner, ObjectPlace, ObjectRef, SandboxId, SystemClock,
};
use objects::{Backend, Limits, Settings, Store};
use reqwest::Method;
use serde_json::{Value, json};

use super::world::{BLUE, World, error, json as body_of};

pub fn store(directory: &Path) -> Store {
    let backend = Backend::Local(directory.to_owned());
    Store::open(&Settings { backend, limits: Limits::default() }).unwrap()
}

/// A job of a tenant that left these, as executors and drivers tell of it.
pub async fn job(world: &World, store: &Store, tenant: &str, files: &[(&str, &[u8])]) -> JobId {
    let job = JobId::new();
    let place = ObjectPlace { tenant: tenant.parse().unwrap(), owner: ObjectOwner::Job(job) };
    let spec = json!({
        "place": {"existing": SandboxId::new()}, "command": {"argv": ["true"]}, "queue": "default"
    });
    let submitted = JobSubmitted { job, owner: None, spec: serde_json::from_value(spec).unwrap() };
    let mut said: Vec<EventData> = vec![submitted.into(), JobAdmitted { job, attempt: 1 }.into()];
    for (path, bytes) in files {
        let key = store.put_bytes(&place, Bytes::copy_from_slice(bytes)).await.unwrap();
        let object = ObjectRef { sha256: key.sha256, size: bytes.len() as u64 };
        let artifact = JobArtifact { path: (*path).to_owned(), mode: 0o640, object };
        said.push(JobArtifactStored { job, attempt: 1, artifact }.into());
    }
    let event = |data| Event {
        id: EventId::new(),
        tenant: place.tenant.clone(),
        sandbox: None,
        time: SystemClock.now(),
        actor: Actor::Jobs,
        cause: None,
        request_id: None,
        traceparent: None,
        data,
    };
    world.log.publish(&said.into_iter().map(event).collect::<Vec<_>>()).await.unwrap();
    let recorded = async {
        loop {
            let state = world.store.store.get_of::<JobState>(&place.tenant, job).await.unwrap();
            if state.is_some_and(|state| state.artifacts.len() == files.len()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), recorded).await.unwrap();
    job
}

#[tokio::test]
async fn artifacts_are_listed_read_in_parts_and_archived() {
    let dir = tempfile::tempdir().unwrap();
    let objects = store(dir.path());
    let world = World::with(|config| config.objects = Some(objects.clone()), false).await;
    let long = format!("{}/f", "deep".repeat(60));
    let large: Vec<u8> = (0..3_000_000u32).map(|index| (index % 251) as u8).collect();
    let files: [(&str, &[u8]); 5] = [
        ("out/b.txt", b"0123456789"),
        ("out/a b?#%.txt", b"odd"),
        ("empty", b""),
        (&long, b"x"),
        ("large", &large),
    ];
    let job = job(&world, &objects, "red", &files).await;
    let base = format!("/jobs/{job}/artifacts");
    let listed = world.get(&base).await;
    let paths: Vec<&str> =
        listed["artifacts"].as_array().unwrap().iter().map(|it| it["path"].as_str().unwrap()).collect();
    assert_eq!(paths, [&long, "empty", "large", "out/a b?#%.txt", "out/b.txt"]);
    let hash = |bytes: &[u8]| {
        use sha2::Digest as _;
        ContentHash(sha2::Sha256::digest(bytes).into()).to_string()
    };
    let b = json!({"path": "out/b.txt", "size": 10, "sha256": hash(b"0123456789"), "mode": "0640"});
    assert_eq!(listed["artifacts"][4], b);

    // Slashes as they are, or escaped.
    for path in ["out/b.txt", "out%2Fb.txt"] {
        let response = world.ask(Method::GET, &format!("{base}/{path}")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        assert_eq!(headers["content-length"], "10");
        assert_eq!(headers["etag"], format!("\"{}\"", hash(b"0123456789")));
        assert_eq!(
            (&headers["x-content-type-options"], &headers["accept-ranges"]),
            (&"nosniff".parse().unwrap(), &"bytes".parse().unwrap())
        );
        assert_eq!(response.text().await.unwrap(), "0123456789");
    }
    let odd = world.ask(Method::GET, &format!("{base}/out/a%20b%3F%23%25.txt")).send().await.unwrap();
    assert_eq!(odd.text().await.unwrap(), "odd");
    let whole = world.ask(Method::GET, &format!("{base}/large")).send().await.unwrap();
    assert!(whole.bytes().await.unwrap() == large);
    let head = world.ask(Method::HEAD, &format!("{base}/large")).send().await.unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        (200, &"3000000".parse().unwrap())
    );
    let etag = format!("\"{}\"", hash(b"0123456789"));
    for (range, condition, status, range_of, text) in [
        ("bytes=2-4", None, 206, "bytes 2-4/10", "234"),
        ("bytes=8-", None, 206, "bytes 8-9/10", "89"),
        ("bytes=-3", Some(etag.as_str()), 206, "bytes 7-9/10", "789"),
        ("bytes=2-4", Some("\"other\""), 200, "", "0123456789"),
        ("bytes=0-1,3-4", None, 200, "", "0123456789"),
        ("bytes=10-", None, 416, "bytes */10", ""),
    ] {
        let mut request = world.ask(Method::GET, &format!("{base}/out/b.txt")).header("Range", range);
        if let Some(condition) = condition {
            request = request.header("If-Range", condition);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{range} {condition:?}");
        let found =
            response.headers().get("content-range").map_or("", |value| value.to_str().unwrap()).to_owned();
        assert_eq!(found, range_of);
        if status != 416 {
            assert_eq!(response.text().await.unwrap(), text);
        }
    }

    let archive = world.ask(Method::GET, &format!("{base}?archive=tar")).send().await.unwrap();
    assert_eq!(archive.headers()["content-type"], "application/x-tar");
    let bytes = archive.bytes().await.unwrap();
    // Read by the tar that everybody has.
    let unpacked = tempfile::tempdir().unwrap();
    std::fs::write(unpacked.path().join("all.tar"), &bytes).unwrap();
    let tar = std::process::Command::new("tar")
        .args(["-xf", "all.tar"])
        .current_dir(unpacked.path())
        .output()
        .unwrap();
    assert!(tar.status.success() && tar.stderr.is_empty(), "{tar:?}");
    for (path, contents) in files {
        let found = unpacked.path().join(path);
        assert!(std::fs::read(&found).unwrap() == contents, "{path}");
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&found).unwrap().permissions().mode() & 0o777, 0o640);
    }
    assert_eq!(error(world.ask(Method::GET, &format!("{base}?archive=zip")), 400).await, "BAD_REQUEST");
}

#[tokio::test]
async fn what_a_job_did_not_leave_and_what_is_anothers_is_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let objects = store(dir.path());
    let world = World::with(|config| config.objects = Some(objects.clone()), false).await;
    let ours =
        job(&world, &objects, "red", &[("a", b"ours"), ("gone", b"gone"), ("changed", b"before")]).await;
    let theirs = job(&world, &objects, "blue", &[("a", b"theirs")]).await;
    for path in [
        format!("/jobs/{ours}/artifacts/b"),
        format!("/jobs/{ours}/artifacts/..%2F..%2Fblue"),
        format!("/jobs/{ours}/artifacts/%2Fetc%2Fpasswd"),
        format!("/jobs/{ours}/artifacts/%ff"),
        format!("/jobs/{theirs}/artifacts"),
        format!("/jobs/{theirs}/artifacts?archive=tar"),
        format!("/jobs/{theirs}/artifacts/a"),
        format!("/jobs/{}/artifacts", JobId::new()),
        "/jobs/sb-1/artifacts".to_owned(),
    ] {
        assert_eq!(error(world.ask(Method::GET, &path), 404).await, "NOT_FOUND", "{path}");
    }
    let read = world.ask_as(BLUE, Method::GET, &format!("/jobs/{theirs}/artifacts/a")).send().await.unwrap();
    assert_eq!(read.text().await.unwrap(), "theirs");
    // One tenant's bytes are not to be had by what another's are called.
    let same = job(&world, &objects, "blue", &[("a", b"ours")]).await;
    let listed = body_of(world.ask_as(BLUE, Method::GET, &format!("/jobs/{same}/artifacts")), 200).await;
    let ours_listed = world.get(&format!("/jobs/{ours}/artifacts")).await;
    assert_eq!(listed["artifacts"][0]["sha256"], ours_listed["artifacts"][0]["sha256"]);

    // Removed, and changed behind our back.
    let file = |path: &str| {
        let artifacts = ours_listed["artifacts"].as_array().unwrap();
        let found: &Value = artifacts.iter().find(|it| it["path"] == path).unwrap();
        dir.path().join("objects/red").join(ours.to_string()).join(found["sha256"].as_str().unwrap())
    };
    std::fs::remove_file(file("gone")).unwrap();
    assert_eq!(error(world.ask(Method::GET, &format!("/jobs/{ours}/artifacts/gone")), 410).await, "GONE");
    std::fs::write(file("changed"), "after!").unwrap();
    for (path, what) in [
        ("artifacts/changed", "changed bytes pass for whole"),
        ("artifacts?archive=tar", "an archive without one of its files passes for whole"),
    ] {
        // So short an answer may be cut before its head is on the way.
        let read =
            async { world.ask(Method::GET, &format!("/jobs/{ours}/{path}")).send().await?.bytes().await };
        assert!(read.await.is_err(), "{what}");
    }
}
