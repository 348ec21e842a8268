//! Jobs on real sandboxes, submitted as an event: from their queue to their end, also over the death of the server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use events::{
    Actor, CancelReason, Clock, Event, EventData, EventId, ExecId, ExecSpec, JobCancelRequested, JobContent,
    JobEndReason, JobFile, JobId, JobNeed, JobPhase, JobPlace, JobRetries, JobSpec, JobState, JobSubmitted,
    NeedCondition, Network, OnLost, SandboxSpec, SystemClock, TenantId,
};
use record::{EventFilter, EventQuery, Record};
use support::eventually;
use support::nats::Nats;
use support::serve::Serve;
use transport::{Log, NatsConfig};

const PATIENCE: Duration = Duration::from_secs(90);

/// A server on a nats-server that outlives it, and a hand that submits.
struct World {
    serve: Serve,
    log: Log,
    record: Record,
    _nats: (Nats, tempfile::TempDir),
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nats = Nats::start(dir.path());
        let url = nats.url();
        let serve = Serve::with("bubblewrap", &[("STACYVM_NATS_URL", url.as_str())]).await;
        let log = Log::connect(&NatsConfig::new(url)).await.unwrap();
        let database = format!("sqlite:{}", serve.dir.path().join("events.db").display());
        let record = store::open_store(&database).await.unwrap();
        Self { serve, log, record, _nats: (nats, dir) }
    }

    async fn submit(&self, spec: JobSpec) -> JobId {
        let job = JobId::new();
        self.say(JobSubmitted { job, owner: None, spec: Box::new(spec) }).await;
        job
    }

    async fn say(&self, data: impl Into<EventData>) {
        let event = Event {
            id: EventId::new(),
            tenant: TenantId::default_tenant(),
            sandbox: None,
            time: SystemClock.now(),
            actor: Actor::Client { key: None, user: None },
            cause: None,
            request_id: None,
            traceparent: None,
            data: data.into(),
        };
        self.log.publish(&[event]).await.unwrap();
    }

    async fn state(&self, job: JobId) -> Option<JobState> {
        self.record.store.get::<JobState>(job).await.unwrap()
    }

    async fn until(&self, what: &str, job: JobId, is: impl Fn(&JobState) -> bool) -> JobState {
        let begun = std::time::Instant::now();
        loop {
            if let Some(state) = self.state(job).await
                && is(&state)
            {
                return state;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: {:#?}\n{}",
                self.state(job).await,
                self.serve.process.log_text()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ended(&self, job: JobId) -> (String, JobState) {
        let state = self.until("the job ends", job, JobState::has_ended).await;
        (state.phase.as_str().to_owned(), state)
    }

    /// What an exec wrote to stdout.
    async fn output(&self, exec: ExecId) -> String {
        let (status, state) = self.serve.api.get(&format!("/execs/{exec}")).await;
        assert_eq!(status, 200, "{state}");
        let mut bytes = Vec::new();
        self.serve.api.follow(&exec.to_string(), "stdout", 0, &mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }

    async fn no_sandboxes(&self) {
        eventually("no sandbox of a job is left", PATIENCE, async || {
            let (_, live) = self.record.store.live_sandboxes().await.unwrap();
            live.is_empty().then_some(())
        })
        .await;
    }

    /// The words of a job, in order.
    async fn words(&self, job: JobId) -> Vec<String> {
        let filter = EventFilter::of_thing(&events::Kind::of::<JobState>(), &job.into());
        let query = EventQuery { limit: 1_000, ..EventQuery::whole(&filter) };
        let found = self.record.store.events(&query).await.unwrap();
        let event = |found: record::FoundEvent| found.frame.decode().unwrap();
        found.into_iter().map(event).map(|event| event.data.type_name().to_owned()).collect()
    }
}

fn sandbox() -> SandboxSpec {
    SandboxSpec {
        provider: "bubblewrap".parse().unwrap(),
        pool: None,
        image: "alpine:latest".to_owned(),
        memory_mib: 128,
        cpu_millis: 1000,
        pids_limit: 64,
        network: Network::None,
        read_only_root: false,
        capabilities: None,
        runtime: None,
        owner: None,
        template: None,
        metadata: BTreeMap::new(),
        env_names: Vec::new(),
        env_hmac: BTreeMap::new(),
        secret_names: Vec::new(),
        request_digest: None,
        job: None,
        setup: Vec::new(),
    }
}

fn shell(line: &str) -> JobSpec {
    JobSpec {
        name: None,
        place: JobPlace::Fresh(sandbox()),
        command: ExecSpec {
            argv: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
            cwd: None,
            user: None,
            tty: None,
            stdin: false,
            timeout_ms: Some(60_000),
            linger_ms: None,
            env_hmac: BTreeMap::new(),
            secret_names: Vec::new(),
            request_digest: None,
        },
        env_names: Vec::new(),
        files: Vec::new(),
        stdin: None,
        deadline_ms: None,
        run_at: None,
        retries: JobRetries::default(),
        on_lost: OnLost::Fail,
        priority: 0,
        queue: "default".to_owned(),
        concurrency_key: None,
        concurrency_limit: None,
        needs: Vec::new(),
        labels: BTreeMap::new(),
        artifacts: Vec::new(),
        keep_sandbox_ms: None,
        heartbeat_timeout_ms: None,
        ttl_after_end_ms: None,
        callback: None,
        retry_of: None,
        schedule: None,
        has_sealed: false,
        idempotency_key: None,
        request_digest: None,
    }
}

#[tokio::test]
async fn a_job_that_is_submitted_runs_in_a_sandbox_of_its_own() {
    let world = World::start().await;
    let job = world.submit(shell("echo hello")).await;
    let (outcome, state) = world.ended(job).await;
    assert_eq!(outcome, "succeeded", "{state:?}");
    assert_eq!(world.output(state.exec_of(1)).await, "hello\n");
    let expected = [
        "job.submitted",
        "job.admitted",
        "job.attempt_started",
        "job.attempt_running",
        "job.attempt_ended",
        "job.succeeded",
    ];
    assert_eq!(world.words(job).await, expected);
    let sandbox = world.record.store.sandbox(state.sandbox_of(1)).await.unwrap().unwrap();
    assert_eq!(sandbox.spec.job, Some(job));
    world.no_sandboxes().await;
}

#[tokio::test]
async fn jobs_are_given_files_leave_artifacts_are_retried_and_wait_for_each_other() {
    let world = World::start().await;
    let file = JobFile {
        path: "/workspace/in.txt".to_owned(),
        mode: Some(0o640),
        content: JobContent::Inline("Z2l2ZW4K".to_owned()),
    };
    let line = shell("mkdir out && cp in.txt out/a.txt && echo no > out/b.bin && cat in.txt");
    let first = world
        .submit(JobSpec {
            command: ExecSpec { cwd: Some("/workspace".to_owned()), ..line.command.clone() },
            files: vec![file],
            artifacts: vec!["out/*.txt".to_owned()],
            ..line
        })
        .await;
    let need = |job, condition| JobNeed { job, condition, artifacts: Vec::new(), path: None };
    let after = world
        .submit(JobSpec {
            needs: vec![JobNeed {
                artifacts: vec!["out/*".to_owned()],
                path: Some("/workspace/got".to_owned()),
                ..need(first, NeedCondition::Succeeded)
            }],
            ..shell("cat /workspace/got/out/a.txt")
        })
        .await;
    let fails = world
        .submit(JobSpec {
            retries: JobRetries { max: 1, backoff_ms: 10, ..JobRetries::default() },
            ..shell("exit 3")
        })
        .await;
    let spoilt =
        world.submit(JobSpec { needs: vec![need(fails, NeedCondition::Succeeded)], ..shell("true") }).await;
    let anyway =
        world.submit(JobSpec { needs: vec![need(fails, NeedCondition::Finished)], ..shell("true") }).await;

    let (outcome, state) = world.ended(first).await;
    assert_eq!(outcome, "succeeded", "{state:?}");
    assert_eq!(world.output(state.exec_of(1)).await, "given\n");
    let kept: Vec<&str> = state.artifacts.iter().map(|artifact| artifact.path.as_str()).collect();
    assert_eq!(kept, ["out/a.txt"]);
    let (outcome, state) = world.ended(after).await;
    assert_eq!(outcome, "succeeded", "{state:?}");
    assert_eq!(world.output(state.exec_of(1)).await, "given\n");
    let (outcome, state) = world.ended(fails).await;
    assert_eq!((outcome.as_str(), state.attempt()), ("failed", 2), "{state:?}");
    assert!(matches!(&state.phase, JobPhase::Ended { exit_code: Some(3), .. }), "{state:?}");
    let (outcome, state) = world.ended(spoilt).await;
    let is_need = matches!(&state.phase, JobPhase::Ended { reason: JobEndReason::Need, .. });
    assert_eq!((outcome.as_str(), is_need, state.attempt()), ("failed", true, 0), "{state:?}");
    assert_eq!(world.ended(anyway).await.0, "succeeded");
    world.no_sandboxes().await;
}

#[tokio::test]
async fn a_job_outlives_the_server_and_one_that_is_to_end_ends() {
    let mut world = World::start().await;
    let long = world.submit(shell("echo begun; sleep 8; echo done")).await;
    let endless = world.submit(shell("trap 'exit 0' TERM; while :; do sleep 0.1; done")).await;
    let running = |state: &JobState| matches!(state.phase, JobPhase::Running);
    world.until("it runs", long, running).await;
    world.until("it runs", endless, running).await;
    world.serve.kill_and_restart().await;
    world.say(JobCancelRequested { job: endless, grace_ms: 20_000, reason: CancelReason::User }).await;
    let (outcome, state) = world.ended(endless).await;
    assert_eq!(outcome, "cancelled", "{state:?}");
    let (outcome, state) = world.ended(long).await;
    assert_eq!((outcome.as_str(), state.attempt()), ("succeeded", 1), "{state:?}");
    assert_eq!(world.output(state.exec_of(1)).await, "begun\ndone\n");
    for job in [long, endless] {
        let words = world.words(job).await;
        let ends = words.iter().filter(|word| word.as_str() == "job.attempt_ended").count();
        assert_eq!(ends, 1, "{words:?}");
    }
    world.no_sandboxes().await;
}
