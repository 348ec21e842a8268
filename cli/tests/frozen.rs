//! Processes that are frozen, not dead: their connections stand and nobody answers. Others take their place.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use serde_json::json;
use support::bare_nats::BareNats;
use support::eventually;
use support::nats::NatsCluster;
use support::process::{SIGCONT, SIGSTOP, signal};
use support::serve::Serve;
use support::split::Split;

#[tokio::test]
async fn a_frozen_nats_server_of_our_own_is_replaced() {
    let serve = Serve::start().await;
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    let frozen = serve.nats_pid();
    signal(frozen, SIGSTOP);
    let began = Instant::now();
    eventually("it says that it is not ready", Duration::from_secs(10), async || {
        (serve.api.get("/ready").await.0 == 503).then_some(())
    })
    .await;
    eventually("it is ready again", Duration::from_secs(20), async || serve.api.ready().await.then_some(()))
        .await;
    eprintln!("replaced after {:?}", began.elapsed());
    assert_ne!(serve.nats_pid(), frozen);
    assert_eq!(serve.api.exec(&sandbox, "echo back").await["stdout"], "back\n");
    serve.api.spawn(json!({"image": "alpine:latest"})).await;
}

/// The longest times without success: while a node was frozen, and when it was there again.
#[derive(Debug, Clone, Copy, Default)]
struct Gaps {
    frozen: Duration,
    thawed: Duration,
}

impl Gaps {
    fn note(&mut self, last: Instant, thaw: &OnceLock<Instant>) {
        let (now, thaw) = (Instant::now(), thaw.get().copied());
        let frozen = thaw.unwrap_or(now).saturating_duration_since(last);
        self.frozen = self.frozen.max(frozen);
        let thawed = thaw.map_or(Duration::ZERO, |thaw| now.duration_since(thaw.max(last)));
        self.thawed = self.thawed.max(thawed);
    }

    fn max(self, other: Self) -> Self {
        Self { frozen: self.frozen.max(other.frozen), thawed: self.thawed.max(other.thawed) }
    }
}

/// Somebody who works all the time.
struct Worker {
    acknowledged: Vec<String>,
    gaps: Gaps,
}

async fn work(
    serve: Arc<Serve>,
    sandbox: String,
    thaw: Arc<OnceLock<Instant>>,
    over: Arc<AtomicBool>,
) -> Worker {
    let mut worker = Worker { acknowledged: Vec::new(), gaps: Gaps::default() };
    let mut last = Instant::now();
    while !over.load(Ordering::Acquire) {
        let path = serve.api.url(&format!("/sandboxes/{sandbox}/exec"));
        let asked = serve.api.http.post(path).json(&json!({"command": "echo done", "timeout": "20s"}));
        if let Ok(answer) = asked.send().await
            && answer.status().as_u16() == 200
        {
            let exec = answer.headers()["x-exec-id"].to_str().unwrap().to_owned();
            let body: serde_json::Value = answer.json().await.unwrap();
            assert_eq!(body["stdout"], "done\n");
            worker.acknowledged.push(exec);
            worker.gaps.note(last, &thaw);
            last = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    worker.gaps.note(last, &thaw);
    worker
}

/// How long a bare publisher waits for an acknowledgement, connected to a node that is well.
async fn publish(
    mut bare: BareNats,
    stream: String,
    thaw: Arc<OnceLock<Instant>>,
    over: Arc<AtomicBool>,
) -> Gaps {
    let (mut gaps, mut last) = (Gaps::default(), Instant::now());
    while !over.load(Ordering::Acquire) {
        let answer = bare.ask(&format!("{stream}.x"), "x", Duration::from_secs(1)).await;
        if answer.is_some_and(|answer| answer["seq"].is_u64()) {
            gaps.note(last, &thaw);
            last = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    gaps.note(last, &thaw);
    gaps
}

/// Looks at a file all the time, which goes over core NATS: how long the longest look took.
async fn look(serve: Arc<Serve>, sandbox: String, over: Arc<AtomicBool>) -> Duration {
    let mut longest = Duration::ZERO;
    while !over.load(Ordering::Acquire) {
        let began = Instant::now();
        let (status, answer) = serve.api.get(&format!("/sandboxes/{sandbox}/files/stat?path=/etc")).await;
        assert!(status == 200 || status == 503, "{status} {answer}");
        longest = longest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    longest
}

/// What a frozen server has taken is answered by nobody, and that is known soon.
#[tokio::test]
async fn calls_over_a_frozen_nats_server_fail_soon_and_work_when_it_is_back() {
    let split = Split::start().await;
    let sandbox = split.api.spawn(json!({"image": "alpine:latest"})).await;
    let base = format!("/sandboxes/{sandbox}/files");
    let (get, put) =
        (split.api.url(&format!("{base}/stat?path=/etc")), split.api.url(&format!("{base}?path=/f")));
    let body = json!({"old_path": "/none", "new_path": "/other"});
    let moved = split.api.url(&format!("{base}/move"));
    let calls = || {
        let http = &split.api.http;
        [http.get(&get), http.put(&put).body("x"), http.post(&moved).json(&body)]
    };
    split.nats.signal(SIGSTOP);
    let asked = calls().map(|call| async {
        let began = Instant::now();
        let status = call.send().await.unwrap().status().as_u16();
        (status, began.elapsed())
    });
    for (status, took) in futures::future::join_all(asked).await {
        eprintln!("{status} after {took:?}");
        // It waited for 20 s before.
        assert!(status == 503 && took < Duration::from_secs(15), "{status} after {took:?}");
    }
    split.nats.signal(SIGCONT);
    eventually("calls are answered again", Duration::from_secs(60), async || {
        let status = split.api.http.get(&get).send().await.unwrap().status();
        (status == 200).then_some(())
    })
    .await;
    for (call, wanted) in calls().into_iter().zip([200, 200, 404]) {
        assert_eq!(call.send().await.unwrap().status(), wanted);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_node_of_a_nats_cluster_holds_nobody_up_for_long() {
    let cluster = NatsCluster::start();
    let url = cluster.url();
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("serve.log");
    let environment = [("STACYVM_NATS_URL", url.as_str())];
    let serve = Serve::on(dir, log, "docker", &environment, "nats: {replicas: 3, max_events: 256m}").await;
    let serve = Arc::new(serve);
    let sandbox = serve.api.spawn(json!({"image": "alpine:latest"})).await;
    for follower in [true, false] {
        // What commands go through is led by one node.
        let leader = eventually("the leaders are gathered", Duration::from_secs(60), async || {
            let leader = cluster.leader("STACYVM-EVENTS").await?;
            (cluster.leader("STACYVM-COMMANDS").await? == leader).then_some(leader)
        })
        .await;
        let victim =
            cluster.nodes.iter().find(|node| (node.name != leader) == follower).map(|node| node.name.clone());
        let victim = cluster.node(&victim.unwrap());
        let (over, thaw) = (Arc::new(AtomicBool::new(false)), Arc::new(OnceLock::new()));
        // What NATS itself takes, without anything of ours: another stream, led like ours.
        let well = cluster.nodes.iter().find(|node| node.name != victim.name).unwrap();
        let mut bare = BareNats::connect(well.port).await.unwrap();
        let stream = format!("BARE-{follower}");
        bare.make_stream(&stream, &leader).await;
        let publisher = tokio::spawn(publish(bare, stream, Arc::clone(&thaw), Arc::clone(&over)));
        let workers: Vec<_> = (0..3)
            .map(|_| {
                let (thaw, over) = (Arc::clone(&thaw), Arc::clone(&over));
                tokio::spawn(work(Arc::clone(&serve), sandbox.clone(), thaw, over))
            })
            .collect();
        let looks = tokio::spawn(look(Arc::clone(&serve), sandbox.clone(), Arc::clone(&over)));
        tokio::time::sleep(Duration::from_secs(1)).await;
        victim.process.signal(SIGSTOP);
        tokio::time::sleep(Duration::from_secs(14)).await;
        let (ready, answer) = serve.api.get("/ready").await;
        thaw.set(Instant::now()).unwrap();
        victim.process.signal(SIGCONT);
        tokio::time::sleep(Duration::from_secs(2)).await;
        over.store(true, Ordering::Release);
        let mut acknowledged = Vec::new();
        let mut gaps = Gaps::default();
        for worker in workers {
            let worker = worker.await.unwrap();
            gaps = gaps.max(worker.gaps);
            acknowledged.extend(worker.acknowledged);
        }
        let floor = publisher.await.unwrap();
        let longest = looks.await.unwrap();
        eprintln!("the longest look at a file took {longest:?}");
        // Nobody is elected for these: another server is found, or none in time.
        assert!(longest < Duration::from_secs(13), "a look at a file took {longest:?}");
        eprintln!(
            "frozen follower: {follower}; longest gaps {gaps:?}, of a bare publisher {floor:?}, {} execs",
            acknowledged.len()
        );
        assert_eq!(ready, 200, "not ready with two nodes of three: {answer}");
        // A frozen leader is replaced after an election, which takes NATS four to nine seconds.
        assert!(
            gaps.frozen < Duration::from_secs(13),
            "frozen follower: {follower}: nothing went for {gaps:?}"
        );
        for exec in &acknowledged {
            let (status, found) = serve.api.get(&format!("/execs/{exec}")).await;
            assert_eq!((status, &found["exit_code"]), (200, &json!(0)), "acknowledged and lost: {found}");
        }
    }
}

#[tokio::test]
async fn what_a_killed_executor_had_taken_another_one_does_soon() {
    let mut split = Split::start().await;
    split.api.spawn(json!({"image": "alpine:latest"})).await;
    // It has asked for commands, gets one and does nothing any more.
    split.executor.signal(SIGSTOP);
    let api = split.api.clone();
    let spawned =
        tokio::spawn(async move { api.post("/sandboxes", json!({"image": "alpine:latest"})).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!spawned.is_finished());
    split.executor.kill();
    let killed = Instant::now();
    let mut other = split.another("executor", "executor");
    let (status, answer) = tokio::time::timeout(Duration::from_secs(20), spawned).await.unwrap().unwrap();
    eprintln!("taken over after {:?}", killed.elapsed());
    assert_eq!((status, &answer["state"]), (201, &json!("running")), "{answer}");
    split.api.exec(answer["id"].as_str().unwrap(), "true").await;
    other.kill();
}
