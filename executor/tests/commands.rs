//! Commands in, events out: a real nats-server, a real recorder on SQLite, a real Docker engine, real agents.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

mod world;

use std::time::{Duration, Instant};

use events::*;
use feed::OutputItem;
use transport::*;
use world::{IMAGE, World, types};

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
    let mut reader = world.feed.exec_output(running, 0, 0).await.unwrap();
    while !matches!(reader.next().await.unwrap(), Some(OutputItem::Output { .. })) {}
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
    let EventData::Exec(ExecEvent::Killed(ExecKilled { signal: 9, asked: Some(asked), .. })) = killed else {
        panic!("{killed:?}")
    };
    assert_eq!((asked.cause, &asked.by), (EndCause::Sandbox, &Some(destroy.actor.clone())));
    assert!(world.provider.list().await.unwrap().is_empty());
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
    world.provider.destroy(sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_fails_the_sandbox_and_says_so() {
    let world = World::start().await;
    let sandbox = world.create("registry.invalid/no/such:image").await;
    let all = world.until(sandbox, "sandbox.failed").await;
    let EventData::Sandbox(SandboxEvent::Failed(failed)) = &all.last().unwrap().event.data else {
        panic!("{all:?}")
    };
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
        linger_ms: None,
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
    world.provider.destroy(sandbox).await.unwrap();
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
    world.provider.destroy(sandbox).await.unwrap();
}

impl World {
    /// Asks for the end of an exec, as a gateway does.
    async fn kill(&self, sandbox: SandboxId, exec: ExecId, by: &Actor) {
        let request = LinkRequest {
            tenant: TenantId::default_tenant(),
            actor: by.clone(),
            request_id: None,
            traceparent: None,
            sandbox,
            op: LinkOp::Kill { exec },
            tell_working: true,
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
    world.provider.destroy(sandbox).await.unwrap();
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
    world.provider.destroy(sandbox).await.unwrap();
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
    world.provider.destroy(sandbox).await.unwrap();
    let all = world.until(sandbox, "sandbox.destroyed").await;
    let last = &all.last().unwrap().event;
    assert_eq!(last.data, SandboxDestroyed { reason: DestroyReason::Vanished }.into());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_whose_command_comes_again_begins_to_run_once() {
    let mut world = World::start().await;
    let sandbox = world.create(IMAGE).await;
    let running = world.until(sandbox, "sandbox.running").await;
    let EventData::Sandbox(SandboxEvent::Requested(requested)) = &running[0].event.data else {
        panic!("{running:?}")
    };
    world.stop_executor().await;
    // Another id: JetStream takes it for another command, as one that comes again after a kill.
    let (spec, expires_at) = (requested.spec.clone(), requested.expires_at);
    let again =
        Command::CreateSandbox { spec: spec.clone(), env: SecretMap::default(), expires_at, term: None };
    world.log.send(Destination::Pool(&spec.pool()), &world.envelope(sandbox, again)).await.unwrap();
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
    world.provider.destroy(other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_to_live_counts_from_when_it_runs_and_waiting_has_an_end() {
    let mut world = World::start().await;
    let first = world.create(IMAGE).await;
    let running = world.until(first, "sandbox.running").await;
    let EventData::Sandbox(SandboxEvent::Requested(requested)) = &running[0].event.data else {
        panic!("{running:?}")
    };
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
        world.log.send(Destination::Pool(&spec.pool()), &world.envelope(sandbox, create)).await.unwrap();
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
    let EventData::Sandbox(SandboxEvent::Running(runs)) = &recorded.data else { panic!("{recorded:?}") };
    assert!(recorded.time > now + seconds(2));
    let ends = (runs.expires_at.unwrap() - recorded.time, runs.lifetime_ends_at.unwrap() - recorded.time);
    assert!((ends.0 - seconds(60)).abs() < seconds(1), "{ends:?}");
    assert!((ends.1 - seconds(600)).abs() < seconds(1), "{ends:?}");
    let state = world.feed.store().sandbox(patient).await.unwrap().unwrap();
    assert_eq!(state.expires_at, runs.expires_at.unwrap());

    let all = world.until(late, "sandbox.failed").await;
    let EventData::Sandbox(SandboxEvent::Failed(failed)) = &all.last().unwrap().event.data else {
        panic!("{all:?}")
    };
    assert_eq!(failed.code, FailureCode::QueueTimeout, "{failed:?}");
    for sandbox in [first, patient] {
        world.provider.destroy(sandbox).await.unwrap();
    }
}

impl World {
    async fn ask(
        &self,
        tenant: &str,
        sandbox: SandboxId,
        op: LinkOp,
    ) -> Result<Vec<CollectedLine>, LinkError> {
        let request = LinkRequest {
            tenant: tenant.parse().unwrap(),
            actor: Actor::Client { key: None, user: None },
            request_id: None,
            traceparent: None,
            sandbox,
            op,
            tell_working: true,
        };
        let mut stream = LinkClient::new(&self.log).open(&self.node, &request).await?;
        let mut text = Vec::new();
        while let Some(bytes) = stream.read().await? {
            text.extend_from_slice(&bytes);
        }
        Ok(text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_leave_a_sandbox_and_come_into_another_one_of_the_same_tenant_only() {
    let world = World::start().await;
    let (first, second) = (world.create(IMAGE).await, world.create(IMAGE).await);
    for sandbox in [first, second] {
        world.until(sandbox, "sandbox.running").await;
    }
    let script =
        "mkdir out; echo one >out/1; echo two >out/2; ln -s / out/root; seq 9 | xargs -n1 -I{} touch n{}";
    let exec = world.start_exec(first, script).await;
    assert_eq!(world.ended(exec).await.end.unwrap().exit_code(), Some(0));
    let job = JobId::new();
    let collect = |directory: &str, pattern: &str| LinkOp::CollectArtifacts {
        job,
        directory: directory.to_owned(),
        patterns: vec![pattern.to_owned()],
        within_ms: 60_000,
    };
    let ours = TenantId::default_tenant();
    let lines = world.ask(ours.as_str(), first, collect(".", "out/**")).await.unwrap();
    let artifacts: Vec<JobArtifact> = lines
        .iter()
        .filter_map(|line| match line {
            CollectedLine::Stored(artifact) => Some(artifact.clone()),
            CollectedLine::LeftOut { .. } | CollectedLine::End { .. } => None,
        })
        .collect();
    assert_eq!(
        artifacts.iter().map(|it| (it.path.as_str(), it.object.size)).collect::<Vec<_>>(),
        [("out/1", 4), ("out/2", 4)]
    );
    let root = CollectedLine::LeftOut { path: "out/root".to_owned(), reason: "symlink".to_owned() };
    assert_eq!(lines[2..], [root, CollectedLine::End { left_out: 1 }]);
    // Asked again it is the same.
    assert_eq!(world.ask(ours.as_str(), first, collect(".", "out/**")).await.unwrap(), lines);
    for (directory, pattern, code) in [
        (".", "../x", FaultCode::InvalidPath),
        (".", "n*", FaultCode::TooMany),
        ("missing", "*", FaultCode::NotFound),
    ] {
        let error = world.ask(ours.as_str(), first, collect(directory, pattern)).await.unwrap_err();
        assert!(matches!(&error, LinkError::Refused(fault) if fault.code == code), "{pattern}: {error:?}");
    }
    let place =
        |job| LinkOp::PlaceArtifacts { job, artifacts: artifacts.clone(), directory: "in".to_owned() };
    world.ask(ours.as_str(), second, place(job)).await.unwrap();
    let exec = world.start_exec(second, "cat in/out/1 in/out/2").await;
    assert_eq!(world.output(exec).await.0, b"one\ntwo\n");
    // Another job's are not this one's, and another tenant has neither the sandbox nor the artifacts.
    let error = world.ask(ours.as_str(), second, place(JobId::new())).await.unwrap_err();
    assert!(matches!(&error, LinkError::Refused(fault) if fault.code == FaultCode::NotFound), "{error:?}");
    let error = world.ask("others", second, place(job)).await.unwrap_err();
    assert!(matches!(&error, LinkError::Refused(fault) if fault.code == FaultCode::SandboxGone), "{error:?}");
    for sandbox in [first, second] {
        world.provider.destroy(sandbox).await.unwrap();
    }
}
