use std::collections::BTreeMap;

use chrono::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::*;

fn at() -> DateTime<Utc> {
    Utc.timestamp_opt(1_750_000_000, 123_456_000).single().unwrap()
}

fn event(data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::from_bytes([1; 16]),
        tenant: TenantId::default_tenant(),
        sandbox: Some(SandboxId::from_bytes([2; 16])),
        time: at(),
        actor: Actor::Executor("node-1".parse().unwrap()),
        cause: Some(CommandId::from_bytes([3; 16])),
        request_id: Some(RequestId::try_from("req-1".to_owned()).unwrap()),
        traceparent: None,
        data: data.into(),
    }
}

/// One event of every type: a new type that is not listed here fails the test below.
pub(crate) fn one_of_each() -> Vec<Event> {
    let exec = ExecId::from_bytes([4; 16]);
    let node: NodeId = "node-1".parse().unwrap();
    let ended = ExecEnded {
        stdout_bytes: 5,
        stderr_bytes: 6,
        truncated_bytes: 0,
        duration_us: 1_500,
        oom: false,
        output_open: false,
    };
    let spec = SandboxSpec {
        provider: "docker".parse().unwrap(),
        image: "alpine:latest".to_owned(),
        memory_mib: 512,
        cpu_millis: 1000,
        pool: None,
        pids_limit: 256,
        network: Network::None,
        read_only_root: false,
        capabilities: None,
        runtime: None,
        owner: Some("ada".to_owned()),
        template: None,
        metadata: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
        env_names: vec!["TOKEN".to_owned()],
        env_hmac: BTreeMap::from([("TOKEN".to_owned(), "00ff".to_owned())]),
        secret_names: vec!["TOKEN".to_owned()],
        request_digest: None,
        job: None,
        setup: vec!["pip install x".to_owned()],
    };
    let exec_spec = ExecSpec {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), "true".to_owned()],
        cwd: None,
        user: None,
        tty: None,
        stdin: false,
        linger_ms: None,
        timeout_ms: Some(1000),
        env_hmac: BTreeMap::from([("A".to_owned(), "00ff".to_owned())]),
        secret_names: vec!["A".to_owned()],
        request_digest: None,
    };
    let template = Template {
        name: "py".to_owned(),
        image: "python:3.12".to_owned(),
        provider: None,
        memory_mib: Some(256),
        vcpus: None,
        ttl_seconds: Some(60),
        capabilities: None,
        metadata: BTreeMap::new(),
        env: BTreeMap::new(),
        variables: BTreeMap::from([(
            "A".to_owned(),
            SealedVariable { sealed: "AAAA".to_owned(), hmac: "00ff".to_owned(), secret: true },
        )]),
        description: String::new(),
        version: Some(2),
        network: Some(Network::None),
        setup: vec!["pip install x".to_owned()],
        allowed_hosts: vec!["mirror.example".to_owned()],
        created_at: Some(at()),
        updated_at: Some(at()),
    };
    let (schedule_id, job) = (ScheduleId::from_bytes([9; 16]), JobId::from_bytes([10; 16]));
    let schedule = Schedule {
        id: schedule_id,
        name: "nightly".to_owned(),
        owner: Some("ada".to_owned()),
        timing: Timing::Cron("30 2 * * *".to_owned()),
        timezone: "Europe/Berlin".to_owned(),
        overlap: Overlap::Skip,
        catch_up: CatchUp::Last,
        job: serde_json::json!({"image": "alpine", "command": "true"}),
        sealed: "c2VhbGVk".to_owned(),
    };
    let webhook_id = WebhookId::from_bytes([6; 16]);
    let epoch = EventId::from_bytes([7; 16]);
    let webhook = Webhook {
        id: webhook_id,
        url: "https://example.com/hook".to_owned(),
        types: vec!["sandbox.*".to_owned()],
        sandbox: None,
        sealed_secret: "AAAA".to_owned(),
        description: String::new(),
    };
    let text = || "/workspace/a".to_owned();
    let by = Some(Actor::Client { key: Some("k1".parse().unwrap()), user: Some("ada".to_owned()) });
    let asked = Asked { cause: EndCause::Request, by, signal: 15 };
    let (job_place, job_command) = (spec.clone(), exec_spec.clone());
    let mut all = vec![
        event(SandboxRequested {
            spec,
            expires_at: at(),
            lifetime_ends_at: at(),
            term: Some(Term { ttl_ms: 1_800_000, lifetime_ms: 86_400_000, start_by: at() }),
        }),
        event(SandboxStarting { node: node.clone() }),
        event(SandboxPulling { image: "alpine:latest".to_owned(), fetched_bytes: 1, total_bytes: 2 }),
        event(SandboxRunning {
            node: node.clone(),
            runtime_id: "abc".to_owned(),
            took_us: 10,
            expires_at: Some(at()),
            lifetime_ends_at: Some(at()),
            address: Some([172, 18, 0, 2].into()),
        }),
        event(SandboxFailed { code: FailureCode::ImageNotFound, message: "no such image".to_owned() }),
        event(SandboxTtlExtended { expires_at: at() }),
        event(SandboxDestroyed { reason: DestroyReason::Ttl }),
        event(SandboxErased {}),
        event(ExecRequested { exec, spec: exec_spec.clone(), env_names: vec!["A".to_owned()] }),
        event(ExecStarted { exec, spec: exec_spec, env_names: vec!["A".to_owned()], pid: 7 }),
        event(ExecOutput {
            exec,
            stream: OutputStream::Stdout,
            offset: 0,
            marks: vec![OutputMark { at: 2, later_us: 1_000 }],
            bytes: Bytes::from_static(b"hi\xff"),
            missing: None,
        }),
        event(ExecInput::new(exec, Bytes::from_static(b"ls\n"))),
        event(ExecResized { exec, size: TerminalSize { rows: 40, cols: 120 } }),
        event(ExecSignaled { exec, signal: 15, kill: true }),
        event(ExecExited { exec, code: 9, signal: None, asked: Some(asked.clone()), ended }),
        event(ExecTimedOut { exec, code: None, signal: Some(9), ended }),
        event(ExecKilled {
            exec,
            signal: 9,
            asked: Some(Asked { cause: EndCause::Sandbox, by: None, signal: 9 }),
            ended,
        }),
        event(ExecFailed {
            exec,
            code: FailureCode::SandboxGone,
            message: "gone".to_owned(),
            request_digest: Some("00ff".to_owned()),
        }),
        event(ExecOutcomeUnknown { exec, message: "vanished".to_owned() }),
        event(FileWritten { path: text(), size: 3, mode: 0o644 }),
        event(FileRead { path: text(), size: 3, range: Some((1, 2)) }),
        event(FileDeleted { path: text(), recursive: true }),
        event(FileMoved { from: text(), to: text() }),
        event(FileModeChanged { path: text(), mode: 0o755 }),
        event(TemplateSaved { template }),
        event(TemplateDeleted { name: "py".to_owned() }),
        event(NodeJoined {
            node: node.clone(),
            providers: vec!["docker".parse().unwrap()],
            pools: vec!["fast".parse().unwrap()],
            capacity: 10,
        }),
        event(NodeDraining { node }),
        event(AccessGranted { exec, expires_at: at(), viewer: Some("vl-1".parse().unwrap()) }),
        event(AccessDenied {
            route: "DELETE /sandboxes/{id}".to_owned(),
            reason: "no key".to_owned(),
            source: Some("192.0.2.7".to_owned()),
            count: 17,
            first_at: Some(at()),
        }),
        event(AuditCheckpoint {
            statement: CheckpointStatement {
                up_to: Position(9),
                at: at(),
                chains: vec![ChainPoint {
                    tenant: TenantId::default_tenant(),
                    position: Position(8),
                    hash: ChainHash([7; 32]),
                }],
                previous: ChainHash::GENESIS,
            },
            key_id: "0011223344556677".to_owned(),
            signature: "00ff".to_owned(),
        }),
        event(LogTrimmed {
            class: RetentionClass::Output,
            up_to: Position(7),
            checkpoint: EventId::from_bytes([5; 16]),
        }),
        event(WebhookSaved { webhook, cursor: Position(3) }),
        event(WebhookDeleted { webhook: webhook_id }),
        event(WebhookAdvanced { webhook: webhook_id, epoch, cursor: Position(4), delivered: 1 }),
        event(WebhookFailed {
            webhook: webhook_id,
            epoch,
            position: Position(5),
            attempts: 1,
            message: "connection refused".to_owned(),
            retry_at: at(),
        }),
        event(WebhookRewound { webhook: webhook_id, cursor: Position(2) }),
        event(WebhookSuspended {
            webhook: webhook_id,
            epoch,
            position: Position(5),
            attempts: 20,
            message: "connection refused".to_owned(),
        }),
        event(WebhookPinged { webhook: webhook_id }),
        event(WebhookPingEnded {
            webhook: webhook_id,
            ping: epoch,
            status: Some(500),
            message: Some("answered 500".to_owned()),
        }),
        event(ScheduleCreated { schedule: schedule.clone() }),
        event(ScheduleUpdated {
            schedule: Schedule { timing: Timing::Every { seconds: 900, anchor: at() }, ..schedule },
        }),
        event(ScheduleDeleted { schedule: schedule_id }),
        event(SchedulePaused { schedule: schedule_id }),
        event(ScheduleResumed { schedule: schedule_id }),
        event(ScheduleTriggered { schedule: schedule_id, job }),
        event(ScheduleTicked {
            schedule: schedule_id,
            epoch,
            at: at(),
            outcome: TickOutcome::Replaced { job, cancelled: job },
        }),
        event(ScheduleMissed { schedule: schedule_id, epoch, from: at(), until: at(), count: 3 }),
        event(ScheduleReleased { schedule: schedule_id, job, cancelled: Some(job) }),
        event(SandboxDestroying { reason: DestroyReason::User }),
        event(ExecAttached {
            exec,
            attachment: "at-1".parse().unwrap(),
            writes: true,
            source: Some("192.0.2.7".to_owned()),
            stdout_offset: 0,
            stderr_offset: 0,
            untold: 2,
        }),
        event(ExecDetached {
            exec,
            attachment: "at-1".parse().unwrap(),
            stdout_offset: 9,
            stderr_offset: 0,
            reason: DetachReason::Left,
        }),
        event(LogRestored {
            statement: RestoreStatement { up_to: Position(7), lost_to: Position(9), at: at() },
            key_id: "00".to_owned(),
            signature: "11".to_owned(),
        }),
        event(AuditKeyChanged {
            from: "00".to_owned(),
            to: "22".to_owned(),
            at: at(),
            signature: Some("11".to_owned()),
        }),
        event(AccessRevoked { exec, viewer: "vl-1".parse().unwrap() }),
        event(ExecOutputClosed {
            exec,
            reason: OutputCloseReason::TooMany,
            stdout_bytes: 9,
            stderr_bytes: 6,
            truncated_bytes: 3,
        }),
    ];
    all.extend(those_of_a_job(job_place, job_command));
    all
}

/// One of each that a job may have.
fn those_of_a_job(place: SandboxSpec, command: ExecSpec) -> Vec<Event> {
    let job = JobId::from_bytes([8; 16]);
    let (attempt, exit_code) = (1, Some(3));
    let object = ObjectRef { sha256: ContentHash([1; 32]), size: 9 };
    let text = || "no such thing".to_owned();
    let spec = JobSpec {
        name: Some("nightly".to_owned()),
        place: JobPlace::Fresh(place),
        command,
        env_names: vec!["A".to_owned()],
        files: vec![JobFile {
            path: "/workspace/a".to_owned(),
            mode: Some(0o644),
            content: JobContent::Inline("aGk=".to_owned()),
        }],
        stdin: Some(JobContent::Object(object.clone())),
        deadline_ms: Some(60_000),
        run_at: Some(at()),
        retries: JobRetries { max: 2, on: vec![RetryOn::Failed, RetryOn::Lost], ..JobRetries::default() },
        on_lost: OnLost::Rerun,
        priority: 7,
        queue: DEFAULT_QUEUE.to_owned(),
        concurrency_key: Some("db".to_owned()),
        concurrency_limit: Some(2),
        needs: vec![JobNeed {
            job: JobId::from_bytes([9; 16]),
            condition: NeedCondition::Finished,
            artifacts: vec!["out/*".to_owned()],
            path: Some("in".to_owned()),
        }],
        labels: BTreeMap::from([("team".to_owned(), "red".to_owned())]),
        artifacts: vec!["out/**".to_owned()],
        keep_sandbox_ms: Some(1_000),
        heartbeat_timeout_ms: Some(2_000),
        ttl_after_end_ms: Some(3_000),
        callback: Some(JobCallback {
            url: "https://example.com/done".to_owned(),
            header_names: vec!["x-run".to_owned()],
        }),
        retry_of: Some(JobId::from_bytes([10; 16])),
        schedule: Some("nightly".to_owned()),
        has_sealed: true,
        idempotency_key: Some("run-7".to_owned()),
        request_digest: Some("00ff".to_owned()),
    };
    let artifact = JobArtifact { path: "out/a".to_owned(), mode: 0o644, object };
    vec![
        event(JobSubmitted { job, owner: Some("ada".to_owned()), spec: Box::new(spec) }),
        event(JobQueued { job }),
        event(JobHeld { job, reason: Some(HoldReason::Unplaceable), message: text() }),
        event(JobAdmitted { job, attempt }),
        event(JobAttemptStarted {
            job,
            attempt,
            sandbox: SandboxId::from_bytes([2; 16]),
            exec: ExecId::from_bytes([4; 16]),
        }),
        event(JobAttemptRunning { job, attempt, node: Some("node-1".parse().unwrap()) }),
        event(JobAttemptEnded {
            job,
            attempt,
            outcome: AttemptOutcome::NotStarted,
            exit_code,
            failure: Some(FailureCode::ImageNotFound),
            message: text(),
        }),
        event(JobRetryScheduled { job, attempt: 2, due_at: at() }),
        event(JobArtifactStored { job, attempt, artifact }),
        event(JobProgressed { job, attempt, percent: Some(40), message: text() }),
        event(JobCancelRequested { job, grace_ms: 10_000, reason: CancelReason::User }),
        event(JobSucceeded { job, reason: JobEndReason::Exited, exit_code: Some(0), message: String::new() }),
        event(JobFailed { job, reason: JobEndReason::Exited, exit_code, message: text() }),
        event(JobCancelled { job, reason: JobEndReason::User, exit_code, message: text() }),
        event(JobTimedOut { job, reason: JobEndReason::Deadline, exit_code, message: text() }),
        event(JobOutcomeUnknown { job, reason: JobEndReason::Lost, exit_code: None, message: text() }),
    ]
}

#[test]
fn the_wire_form_of_every_event_is_frozen() {
    let events = one_of_each();
    let types: Vec<_> = events.iter().map(|event| event.data.type_name()).collect();
    let (mut here, mut all) = (types.clone(), EventData::TYPES.to_vec());
    here.sort_unstable();
    all.sort_unstable();
    assert_eq!(here, all);
    let headers: Vec<String> = events
        .iter()
        .map(|event| String::from_utf8(event.to_frame().unwrap().header.to_vec()).unwrap())
        .collect();
    insta::assert_snapshot!(headers.join("\n"));
}

#[test]
fn every_event_survives_a_batch() {
    let events = one_of_each();
    let mut frames: Vec<Frame> = events.iter().map(|event| event.to_frame().unwrap()).collect();
    for (index, frame) in frames.iter_mut().enumerate() {
        frame.position = Position(index as u64 + 1);
    }
    let gone = frames.iter_mut().find(|frame| !frame.body.is_empty()).unwrap();
    gone.missing = Some(MissingBody { why: Gone::Erased, length: 3 });
    gone.body = Bytes::new();
    let gone = gone.position;
    let back = decode_batch(encode_recorded_batch(&frames), true).unwrap();
    assert_eq!(back, frames);
    for (frame, event) in back.iter().zip(events) {
        let decoded = frame.decode().unwrap();
        if frame.position == gone {
            let EventData::Exec(ExecEvent::Output(output)) = decoded.data else { panic!("not output") };
            assert_eq!((output.length(), &output.bytes[..]), (3, &b""[..]));
        } else {
            assert_eq!(decoded, event);
        }
    }
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>, recorded: bool) {
        if let Ok(frames) = decode_batch(Bytes::from(bytes), recorded) {
            for frame in frames {
                let _ = frame.decode();
            }
        }
    }

    #[test]
    fn a_truncated_batch_is_an_error(cut in 1usize..40) {
        let whole = encode_batch(&[one_of_each()[12].to_frame().unwrap()]);
        prop_assert!(decode_batch(whole.slice(..whole.len() - cut), false).is_err());
    }
}

#[test]
fn output_past_the_end_of_all_numbers_is_no_event() {
    let exec = ExecId::from_bytes([4; 16]);
    let read = |offset| {
        let output = ExecOutput::new(exec, OutputStream::Stdout, offset, Bytes::from_static(b"hello"));
        event(output).to_frame().unwrap().decode()
    };
    assert!(read(i64::MAX as u64 - 5).is_ok());
    for offset in [i64::MAX as u64 - 4, u64::MAX - 4, u64::MAX] {
        assert!(matches!(read(offset), Err(DecodeError::Frame(_))), "{offset}");
    }
}
