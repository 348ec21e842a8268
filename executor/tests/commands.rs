//! Commands in, events out: a real nats-server, a real recorder on SQLite, a real Docker engine, real agents.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use events::recorder::{self, JetStreamTransport};
use events::*;
use executor::provider::Provider;
use executor::providers::docker::{DockerConfig, DockerProvider};
use executor::{Executor, ExecutorConfig};
use tokio_util::sync::CancellationToken;

/// What `scripts/setup` makes.
const IMAGE: &str = "stacyvm/base:local";

struct Nats(Child);

impl Drop for Nats {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct World {
    log: Log,
    feed: Feed,
    node: NodeId,
    docker: Arc<dyn Provider>,
    executor: Option<(CancellationToken, tokio::task::JoinHandle<()>)>,
    _dir: tempfile::TempDir,
    _nats: Nats,
}

fn agent() -> std::path::PathBuf {
    let path =
        std::env::var("STACYVM_AGENT").expect("STACYVM_AGENT names the static agent; run `make agent`");
    std::fs::canonicalize(path).expect("the agent is there")
}

impl Drop for World {
    fn drop(&mut self) {
        // What sandboxes that are left share with the executor.
        for entry in std::fs::read_dir(self._dir.path().join("docker")).into_iter().flatten().flatten() {
            let _ = rustix::mount::unmount(entry.path(), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.path().join("nats.conf");
        let text = format!(
            "listen: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\", sync_interval: always }}\n",
            dir.path().join("nats").display()
        );
        std::fs::write(&config, text).unwrap();
        let nats = Process::new("nats-server")
            .arg("--config")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server is installed; run scripts/setup");
        let nats = Nats(nats);
        let log = Log::connect(&NatsConfig::new(format!("nats://127.0.0.1:{port}"))).await.unwrap();
        let store = open_store(&format!("sqlite:{}", dir.path().join("events.db").display())).await.unwrap();
        tokio::spawn(serve_queries_forever(log.clone(), store.clone()));
        tokio::spawn(recorder::run(JetStreamTransport::new(&log), store.clone(), CancellationToken::new()));
        let feed = Feed::start(&log, store).await.unwrap();
        let node: NodeId = "node-1".parse().unwrap();
        let mut docker = DockerConfig::new(dir.path().join("docker"), agent(), node.clone()).unwrap();
        docker.deployment = format!("test-{port}-{}", std::process::id());
        let docker: Arc<dyn Provider> = Arc::new(DockerProvider::new(docker).unwrap());
        let mut world = Self { log, feed, node, docker, executor: None, _dir: dir, _nats: nats };
        world.start_executor();
        world
    }

    fn start_executor(&mut self) {
        let stop = CancellationToken::new();
        let config = ExecutorConfig {
            node: self.node.clone(),
            capacity: 10,
            max_output_bytes: 1 << 30,
            redaction: events::RedactionRules::default(),
            record_input: false,
            disk: events::DiskFloor::default(),
        };
        let executor = Executor::new(
            config,
            self.log.clone(),
            vec![Arc::clone(&self.docker)],
            Arc::new(SystemClock),
            stop.clone(),
        );
        let task = tokio::spawn(async move { executor.run().await.unwrap() });
        self.executor = Some((stop, task));
    }

    async fn stop_executor(&mut self) {
        let (stop, task) = self.executor.take().unwrap();
        stop.cancel();
        task.await.unwrap();
    }

    fn envelope(&self, sandbox: SandboxId, command: Command) -> CommandEnvelope {
        CommandEnvelope {
            id: CommandId::new(),
            tenant: TenantId::default_tenant(),
            actor: Actor::Client { key: None, user: None },
            request_id: None,
            traceparent: None,
            sandbox,
            command,
        }
    }

    async fn create(&self, image: &str) -> SandboxId {
        self.create_with(image, SecretMap::default()).await
    }

    async fn create_with(&self, image: &str, env: SecretMap) -> SandboxId {
        let sandbox = SandboxId::new();
        let spec = SandboxSpec {
            provider: "docker".parse().unwrap(),
            image: image.to_owned(),
            memory_mib: 128,
            cpu_millis: 1000,
            pids_limit: 64,
            network: Network::None,
            read_only_root: false,
            capabilities: None,
            runtime: None,
            owner: None,
            template: None,
            metadata: Default::default(),
            env_names: env.names(),
            env_hmac: Default::default(),
            secret_names: Vec::new(),
            request_digest: None,
            setup: Vec::new(),
        };
        let now = SystemClock.now();
        let expires_at = now + chrono::TimeDelta::minutes(5);
        let requested = SandboxRequested {
            spec: spec.clone(),
            expires_at,
            lifetime_ends_at: now + chrono::TimeDelta::hours(1),
            term: None,
        };
        let event = Event {
            id: EventId::new(),
            tenant: TenantId::default_tenant(),
            sandbox: Some(sandbox),
            time: now,
            actor: Actor::Client { key: None, user: None },
            cause: None,
            request_id: None,
            traceparent: None,
            data: requested.into(),
        };
        self.log.publish(&[event]).await.unwrap();
        let command = self
            .envelope(sandbox, Command::CreateSandbox { spec: spec.clone(), env, expires_at, term: None });
        self.log.send(Destination::Pool(&spec.provider), &command).await.unwrap();
        sandbox
    }

    async fn start_exec(&self, sandbox: SandboxId, script: &str) -> ExecId {
        let exec = ExecId::new();
        let spec = ExecSpec {
            argv: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            cwd: None,
            user: None,
            tty: None,
            stdin: false,
            timeout_ms: None,
            env_hmac: Default::default(),
            secret_names: Vec::new(),
            request_digest: None,
        };
        let command = self.envelope(sandbox, Command::StartExec { exec, spec, env: SecretMap::default() });
        self.log.send(Destination::Node(&self.node), &command).await.unwrap();
        exec
    }

    /// Reads the sandbox's events until one is of the type.
    async fn until(&self, sandbox: SandboxId, type_name: &str) -> Vec<Arc<Recorded>> {
        let mut reader = self.feed.subscribe(Topic::Sandbox(sandbox), After::Position(Position::ZERO));
        let mut seen = Vec::new();
        let read = async {
            loop {
                let recorded = reader.next().await.unwrap();
                let found = recorded.event.data.type_name() == type_name;
                seen.push(recorded);
                if found {
                    return;
                }
            }
        };
        if tokio::time::timeout(Duration::from_secs(30), read).await.is_err() {
            let types: Vec<_> = seen.iter().map(|recorded| format!("{:?}", recorded.event.data)).collect();
            panic!("no {type_name} in {types:#?}");
        }
        seen
    }

    async fn output(&self, exec: ExecId) -> (Vec<u8>, ExecEnd) {
        let mut reader = self.feed.exec_output(exec, 0, 0).await.unwrap();
        let mut stdout = Vec::new();
        loop {
            match reader.next().await.unwrap().unwrap() {
                OutputItem::Output { bytes, .. } => stdout.extend_from_slice(&bytes),
                OutputItem::Gone { .. } => panic!("output is gone"),
                OutputItem::Started | OutputItem::Resized(_) => {}
                OutputItem::Ended(end) => return (stdout, end),
            }
        }
    }
}

async fn serve_queries_forever(log: Log, store: Arc<dyn EventStore>) {
    serve_queries(&log, store, CancellationToken::new()).await;
}

fn types(events: &[Arc<Recorded>]) -> Vec<&'static str> {
    events.iter().map(|recorded| recorded.event.data.type_name()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_lives_from_its_request_to_its_end() {
    let world = World::start().await;
    let sandbox = world.create(IMAGE).await;
    assert_eq!(
        types(&world.until(sandbox, "sandbox.running").await),
        ["sandbox.requested", "sandbox.starting", "sandbox.running"]
    );
    let exec = world.start_exec(sandbox, "echo out; exit 4").await;
    let (stdout, end) = world.output(exec).await;
    assert_eq!(stdout, b"out\n");
    assert_eq!(end.exit_code(), Some(4));

    let running = world.start_exec(sandbox, "echo begun; sleep 600").await;
    world.until(sandbox, "exec.exited").await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let destroy = world.envelope(sandbox, Command::DestroySandbox { reason: DestroyReason::User });
    world.log.send(Destination::Node(&world.node), &destroy).await.unwrap();
    let all = world.until(sandbox, "sandbox.destroyed").await;
    assert_eq!(
        types(&all)[3..],
        [
            "exec.started",
            "exec.output",
            "exec.exited",
            "exec.started",
            "exec.output",
            "sandbox.destroying",
            "exec.killed",
            "sandbox.destroyed"
        ]
    );
    assert_eq!(world.output(running).await.0, b"begun\n");
    let killed = &all[all.len() - 2].event.data;
    let EventData::ExecKilled(ExecKilled { signal: 9, asked: Some(asked), .. }) = killed else {
        panic!("{killed:?}")
    };
    assert_eq!((asked.cause, &asked.by), (EndCause::Sandbox, &Some(destroy.actor.clone())));
    assert!(world.docker.list().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn output_goes_on_when_the_executor_is_replaced() {
    let mut world = World::start().await;
    let sandbox = world.create(IMAGE).await;
    world.until(sandbox, "sandbox.running").await;
    let exec = world.start_exec(sandbox, "for i in 1 2 3 4 5 6 7 8 9; do echo $i; sleep 0.3; done").await;
    world.until(sandbox, "exec.output").await;
    world.stop_executor().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.start_executor();
    let (stdout, end) = world.output(exec).await;
    assert_eq!(String::from_utf8_lossy(&stdout), "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    assert_eq!(end.exit_code(), Some(0));
    world.docker.destroy(sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_fails_the_sandbox_and_says_so() {
    let world = World::start().await;
    let sandbox = world.create("localhost:1/no/such:image").await;
    let all = world.until(sandbox, "sandbox.failed").await;
    let EventData::SandboxFailed(failed) = &all.last().unwrap().event.data else { panic!("{all:?}") };
    assert!(matches!(failed.code, FailureCode::ImageNotFound | FailureCode::ImagePullFailed), "{failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_comes_twice_has_one_effect() {
    let world = World::start().await;
    let sandbox = world.create(IMAGE).await;
    world.until(sandbox, "sandbox.running").await;
    let exec = ExecId::new();
    let spec = ExecSpec {
        argv: ["/bin/sh", "-c", "echo once >> /workspace/count; cat /workspace/count"]
            .map(str::to_owned)
            .to_vec(),
        cwd: None,
        user: None,
        tty: None,
        stdin: false,
        timeout_ms: None,
        env_hmac: Default::default(),
        secret_names: Vec::new(),
        request_digest: None,
    };
    let began = Instant::now();
    for _ in 0..3 {
        // Another command id each time: JetStream takes them for different ones.
        let command = Command::StartExec { exec, spec: spec.clone(), env: SecretMap::default() };
        world.log.send(Destination::Node(&world.node), &world.envelope(sandbox, command)).await.unwrap();
    }
    assert_eq!(world.output(exec).await.0, b"once\n");
    assert!(began.elapsed() < Duration::from_secs(30));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = world.until(sandbox, "exec.exited").await;
    assert_eq!(types(&started).iter().filter(|name| **name == "exec.started").count(), 1);
    world.docker.destroy(sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_outlives_the_executor_and_is_in_no_event() {
    let mut world = World::start().await;
    let secret = SecretMap([("TOKEN".to_owned(), "s3cr3t-value".to_owned())].into());
    let sandbox = world.create_with(IMAGE, secret).await;
    world.until(sandbox, "sandbox.running").await;
    world.stop_executor().await;
    world.start_executor();
    // The length proves that it is there without writing it down.
    let exec = world.start_exec(sandbox, "printf %s \"$TOKEN\" | wc -c").await;
    assert_eq!(world.output(exec).await.0, b"12\n");
    for recorded in world.until(sandbox, "exec.exited").await {
        let header = String::from_utf8_lossy(&recorded.frame.header).into_owned();
        assert!(!header.contains("s3cr3t"), "{header}");
    }
    world.docker.destroy(sandbox).await.unwrap();
}

impl World {
    /// Asks for the end of an exec, as a gateway does.
    async fn kill(&self, sandbox: SandboxId, exec: ExecId, by: &Actor) {
        let request = LinkRequest {
            tenant: TenantId::default_tenant(),
            actor: by.clone(),
            request_id: None,
            sandbox,
            op: LinkOp::Kill { exec },
        };
        LinkClient::new(&self.log).call(&self.node, &request).await.unwrap();
    }

    async fn ended(&self, exec: ExecId) -> ExecState {
        let (_, end) = self.output(exec).await;
        let state = self.feed.store().exec(exec).await.unwrap().unwrap();
        assert_eq!(state.end.as_ref(), Some(&end));
        state
    }

    /// Runs a script, asks for its end once it has printed something, and says what is recorded.
    async fn killed(&self, sandbox: SandboxId, script: &str, by: &Actor) -> ExecState {
        let exec = self.start_exec(sandbox, script).await;
        let mut reader = self.feed.exec_output(exec, 0, 0).await.unwrap();
        while !matches!(reader.next().await.unwrap(), Some(OutputItem::Output { .. })) {}
        self.kill(sandbox, exec, by).await;
        self.ended(exec).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exec_is_recorded_as_it_ended_and_that_it_was_asked_to() {
    let world = World::start().await;
    let sandbox = world.create(IMAGE).await;
    world.until(sandbox, "sandbox.running").await;
    let by = Actor::Client { key: Some("k1".parse().unwrap()), user: Some("ada".to_owned()) };
    let asked = Some(Asked { cause: EndCause::Request, by: Some(by.clone()), signal: 15 });

    let leaves = "trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done";
    let state = world.killed(sandbox, leaves, &by).await;
    assert!(matches!(state.end, Some(ExecEnd::Exited { code: 9, signal: None, .. })), "{state:?}");
    assert_eq!(state.asked, asked);

    let dies = world.killed(sandbox, "echo up; exec sleep 600", &by).await;
    assert!(matches!(dies.end, Some(ExecEnd::Killed { signal: 15, .. })), "{dies:?}");
    assert_eq!((dies.end.as_ref().and_then(ExecEnd::exit_code), dies.asked), (Some(143), asked.clone()));

    let deaf = world.killed(sandbox, "trap '' TERM; echo up; while :; do sleep 0.1; done", &by).await;
    assert!(matches!(deaf.end, Some(ExecEnd::Killed { signal: 9, .. })), "{deaf:?}");
    assert_eq!((deaf.end.as_ref().and_then(ExecEnd::exit_code), deaf.asked), (Some(137), asked));

    // Nobody asked these.
    let above = world.ended(world.start_exec(sandbox, "exit 137").await).await;
    assert!(matches!(above.end, Some(ExecEnd::Exited { code: 137, signal: None, .. })), "{above:?}");
    assert_eq!(above.asked, None);
    let own = world.ended(world.start_exec(sandbox, "kill -9 $$").await).await;
    assert!(matches!(own.end, Some(ExecEnd::Exited { code: 137, signal: Some(9), .. })), "{own:?}");
    assert_eq!(own.asked, None);
    world.docker.destroy(sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_destroyed_a_sandbox_is_told_though_its_executor_died_over_it() {
    let mut world = World::start().await;
    let sandbox = world.create(IMAGE).await;
    world.until(sandbox, "sandbox.running").await;
    world.stop_executor().await;
    // As far as an executor comes that is killed between the box and the news of it.
    let destroy = world.envelope(sandbox, Command::DestroySandbox { reason: DestroyReason::User });
    let begun = Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: Some(sandbox),
        time: SystemClock.now(),
        actor: destroy.actor.clone(),
        cause: Some(destroy.id),
        request_id: None,
        traceparent: None,
        data: SandboxDestroying { reason: DestroyReason::User }.into(),
    };
    world.docker.destroy(sandbox).await.unwrap();
    world.log.publish(&[begun]).await.unwrap();
    world.start_executor();
    let all = world.until(sandbox, "sandbox.destroyed").await;
    let last = &all.last().unwrap().event;
    assert_eq!(last.data, SandboxDestroyed { reason: DestroyReason::User }.into());
    assert_eq!(last.actor, destroy.actor);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_went_by_itself_has_vanished() {
    let world = World::start().await;
    let sandbox = world.create(IMAGE).await;
    world.until(sandbox, "sandbox.running").await;
    world.docker.destroy(sandbox).await.unwrap();
    let all = world.until(sandbox, "sandbox.destroyed").await;
    let last = &all.last().unwrap().event;
    assert_eq!(last.data, SandboxDestroyed { reason: DestroyReason::Vanished }.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_whose_command_comes_again_begins_to_run_once() {
    let mut world = World::start().await;
    let sandbox = world.create(IMAGE).await;
    let running = world.until(sandbox, "sandbox.running").await;
    let EventData::SandboxRequested(requested) = &running[0].event.data else { panic!("{running:?}") };
    world.stop_executor().await;
    // Another id: JetStream takes it for another command, as one that comes again after a kill.
    let (spec, expires_at) = (requested.spec.clone(), requested.expires_at);
    let again =
        Command::CreateSandbox { spec: spec.clone(), env: SecretMap::default(), expires_at, term: None };
    world.log.send(Destination::Pool(&spec.provider), &world.envelope(sandbox, again)).await.unwrap();
    world.start_executor();
    let exec = world.start_exec(sandbox, "echo alive").await;
    assert_eq!(world.output(exec).await.0, b"alive\n");
    // What comes of the command comes before what comes of this one.
    let other = world.create(IMAGE).await;
    world.until(other, "sandbox.running").await;
    let destroy = world.envelope(sandbox, Command::DestroySandbox { reason: DestroyReason::User });
    world.log.send(Destination::Node(&world.node), &destroy).await.unwrap();
    let all = types(&world.until(sandbox, "sandbox.destroyed").await);
    assert_eq!(all.iter().filter(|name| **name == "sandbox.running").count(), 1, "{all:?}");
    world.docker.destroy(other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_to_live_counts_from_when_it_runs_and_waiting_has_an_end() {
    let mut world = World::start().await;
    let first = world.create(IMAGE).await;
    let running = world.until(first, "sandbox.running").await;
    let EventData::SandboxRequested(requested) = &running[0].event.data else { panic!("{running:?}") };
    let spec = requested.spec.clone();
    world.stop_executor().await;
    let ask = async |term: Term| {
        let sandbox = SandboxId::new();
        let (expires_at, lifetime_ends_at) = term.ends(term.start_by);
        let requested =
            SandboxRequested { spec: spec.clone(), expires_at, lifetime_ends_at, term: Some(term) };
        let event = Event {
            sandbox: Some(sandbox),
            id: EventId::new(),
            data: requested.into(),
            ..running[0].event.clone()
        };
        world.log.publish(&[event]).await.unwrap();
        let create = Command::CreateSandbox {
            spec: spec.clone(),
            env: SecretMap::default(),
            expires_at,
            term: Some(term),
        };
        world.log.send(Destination::Pool(&spec.provider), &world.envelope(sandbox, create)).await.unwrap();
        sandbox
    };
    let now = SystemClock.now();
    let seconds = chrono::TimeDelta::seconds;
    let patient = ask(Term { ttl_ms: 60_000, lifetime_ms: 600_000, start_by: now + seconds(600) }).await;
    let late = ask(Term { ttl_ms: 60_000, lifetime_ms: 600_000, start_by: now + seconds(1) }).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    world.start_executor();
    let all = world.until(patient, "sandbox.running").await;
    let recorded = &all.last().unwrap().event;
    let EventData::SandboxRunning(runs) = &recorded.data else { panic!("{recorded:?}") };
    assert!(recorded.time > now + seconds(2));
    let ends = (runs.expires_at.unwrap() - recorded.time, runs.lifetime_ends_at.unwrap() - recorded.time);
    assert!((ends.0 - seconds(60)).abs() < seconds(1), "{ends:?}");
    assert!((ends.1 - seconds(600)).abs() < seconds(1), "{ends:?}");
    let state = world.feed.store().sandbox(patient).await.unwrap().unwrap();
    assert_eq!(state.expires_at, runs.expires_at.unwrap());

    let all = world.until(late, "sandbox.failed").await;
    let EventData::SandboxFailed(failed) = &all.last().unwrap().event.data else { panic!("{all:?}") };
    assert_eq!(failed.code, FailureCode::QueueTimeout, "{failed:?}");
    for sandbox in [first, patient] {
        world.docker.destroy(sandbox).await.unwrap();
    }
}
