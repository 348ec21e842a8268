//! Each byte is recorded once and in order, and nothing is forgotten before it is recorded: whatever is lost, breaks or dies on the way.

use std::sync::Arc;
use std::time::Duration;

use agent::client::{CallError, Client};
use agent::protocol::Attach;
use events::{
    Actor, CommandId, Event, EventData, EventId, ExecEnd, ExecEvent, ExecId, ExecRequested, ExecSpec,
    ExecStarted, ExecState, SandboxId, SystemClock, TenantId,
};
use fastrand::Rng;
use secrets::Redaction;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::pump::{Exec, Resume};
use super::simulated::{Script, World};
use super::{Found, find_again};
use crate::context::Context;
use crate::hosted::{Hosted, idle_provider};
use crate::recorded::Recorded;

const SECRET: &str = "kestrel-9f31-violet-77";
const CAUSE: CommandId = CommandId::from_bytes([3; 16]);
const SANDBOX: SandboxId = SandboxId::from_bytes([1; 16]);
const EXEC: ExecId = ExecId::from_bytes([2; 16]);

fn spec() -> ExecSpec {
    serde_json::from_value(serde_json::json!({ "argv": ["true"] })).unwrap()
}

fn requested() -> Event {
    Event {
        id: EventId::derived(&["requested"]),
        tenant: TenantId::default_tenant(),
        sandbox: Some(SANDBOX),
        time: events::Clock::now(&SystemClock),
        actor: Actor::Client { key: None, user: None },
        cause: Some(CAUSE),
        request_id: None,
        traceparent: None,
        data: ExecRequested { exec: EXEC, spec: spec(), env_names: Vec::new() }.into(),
    }
}

/// One run: what the exec does, and what befalls those that record it.
struct Plan {
    seed: u64,
    rng: Rng,
    script: Script,
    /// Whether a secret stands in its output.
    secret: bool,
    /// For how long something goes wrong.
    faults: Duration,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let big = rng.u8(..6) == 0;
        let most = if big { 3 << 20 } else { 20_000 };
        let secret = rng.u8(..3) == 0;
        let output = [0, 1].map(|stream| {
            let length = if rng.u8(..5) == 0 { 0 } else { rng.usize(..most) };
            output(&mut rng, stream, length, secret)
        });
        let total: u64 = output.iter().map(|bytes| bytes.len() as u64).sum();
        let open = rng.u8(..3) == 0;
        let after_end = [0, 1].map(|stream: usize| {
            let length = output[stream].len() as u64;
            if open { rng.u64(..=length) } else { 0 }
        });
        let limit = if rng.u8(..3) == 0 { rng.u64(..=total) } else { u64::MAX };
        let script = Script {
            output,
            after_end,
            limit,
            piece: if big { 200_000 } else { (total as usize / 300).max(1 + rng.usize(..2_000)) },
            pause: Duration::from_millis(1 + rng.u64(..if big { 400 } else { 900 })),
            requested: rng.bool().then(requested),
            vanishes_after: (rng.u8(..6) == 0).then(|| Duration::from_millis(rng.u64(..40_000))),
        };
        Self { seed, faults: Duration::from_secs(rng.u64(..90)), rng, script, secret }
    }

    fn redaction(&self) -> Redaction {
        let none = Redaction::default();
        if self.secret { none.with_secrets([SECRET]) } else { none }
    }
}

/// Bytes of which none can be taken for another nearby, with the secret here and there.
fn output(rng: &mut Rng, stream: u64, length: usize, secret: bool) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length as u64)
        .map(|at| match (at + stream).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56 {
            byte if secret => b'A' + (byte % 26) as u8,
            byte => byte as u8,
        })
        .collect();
    if secret {
        for _ in 0..length / 500 {
            let at = rng.usize(..length);
            let end = (at + SECRET.len()).min(length);
            bytes[at..end].copy_from_slice(&SECRET.as_bytes()[..end - at]);
        }
    }
    bytes
}

/// An executor, from its start to its death.
struct Executor {
    world: World,
    hosted: Arc<Hosted>,
    recorded: Arc<Recorded>,
    redaction: Redaction,
    limit: u64,
    shutdown: CancellationToken,
}

/// How its work on the exec ended.
#[derive(Debug)]
enum Left {
    /// Its pump says that there is no more to do.
    Over,
    /// It cannot reach the agent, and a later round tries again.
    Later,
    /// The agent does not know the exec any more, or has gone.
    Gone,
}

impl Executor {
    fn begin(world: &World, redaction: &Redaction, limit: u64) -> Self {
        let recorded = Arc::new(Recorded::new(&Arc::default()));
        world.listen(&recorded);
        let hosted = Arc::new(Hosted::new(
            SANDBOX,
            TenantId::default_tenant(),
            idle_provider(),
            Client::with(world.clone()),
            redaction.clone(),
        ));
        let (world, redaction) = (world.clone(), redaction.clone());
        Self { world, hosted, recorded, redaction, limit, shutdown: CancellationToken::new() }
    }

    /// Goes on with the exec as an executor does that begins: by its command, or by the record.
    async fn work(&self) -> Left {
        let record = self.world.state().record.clone();
        match record {
            Some(record) if record.is_over() => Left::Over,
            Some(record) if !record.pending => self.resume(&record).await,
            Some(_) | None => self.start().await,
        }
    }

    fn exec(&self, limit: u64) -> Exec<World> {
        let clock: Arc<dyn events::Clock> = Arc::new(SystemClock);
        let envelope = serde_json::json!({
            "id": CAUSE, "tenant": "default", "sandbox": SANDBOX, "actor": "client:", "command": { "verb": "destroy_sandbox", "reason": "user" }
        });
        let envelope = serde_json::from_value(envelope).unwrap();
        Exec {
            id: EXEC,
            hosted: Arc::clone(&self.hosted),
            context: Context::of_command(&envelope, &self.redaction, &clock),
            log: self.world.clone(),
            recorded: Arc::clone(&self.recorded),
            max_output_bytes: self.limit.min(limit),
            shutdown: self.shutdown.clone(),
        }
    }

    async fn start(&self) -> Left {
        let attach =
            Attach { exec_id: EXEC.as_bytes().to_owned().into(), stdout_offset: 0, stderr_offset: 0 };
        let connection = match self.hosted.agent.attach_exec(attach).await {
            Ok(connection) => connection,
            Err(CallError::Refused(refusal)) => {
                // Between the look and the start the record has heard of it: the next round goes on by that.
                assert!(
                    self.world.state().record.as_ref().is_some_and(|record| !record.pending),
                    "{refusal}"
                );
                return Left::Later;
            }
            Err(_) => return Left::Later,
        };
        let started = ExecStarted { exec: EXEC, spec: spec(), env_names: Vec::new(), pid: 7 };
        let (durable, is_durable) = oneshot::channel();
        let world = self.world.clone();
        tokio::spawn(async move {
            if is_durable.await.is_ok() {
                // Its command is acknowledged: from here on nobody else knows of it.
                let mut state = world.state();
                let recorded = state.record.as_ref().is_some_and(|record| !record.pending);
                if !recorded && !state.start_stored {
                    state.wrong.push("the news of the start is taken for durable, and is nowhere".to_owned());
                }
            }
        });
        let exec = self.exec(u64::MAX);
        exec.pump(connection, Resume::Started { started: Box::new(started), durable }).await;
        Left::Over
    }

    async fn resume(&self, record: &ExecState) -> Left {
        let recorded = [record.stdout_bytes, record.stderr_bytes];
        let back = self.redaction.lookbehind() as u64;
        match find_again(&self.hosted.agent, EXEC, recorded, back).await {
            Ok(Found { connection, read, limit }) => {
                let resume = Resume::Recorded { recorded, read, ended: record.end.is_some() };
                self.exec(limit).pump(connection, resume).await;
                Left::Over
            }
            Err(CallError::Refused(refusal)) => panic!("{refusal}"),
            Err(_) if self.world.state().is_gone() => Left::Gone,
            Err(_) => Left::Later,
        }
    }
}

async fn run(plan: &mut Plan) {
    let world = World::new(plan.seed, plan.script.clone(), plan.faults);
    if plan.script.requested.is_some() {
        let world = world.clone();
        let late = Duration::from_millis(plan.rng.u64(..50));
        // It is recorded while its command is on the way.
        tokio::spawn(async move {
            sleep(late).await;
            world.record_request();
        });
        sleep(Duration::from_millis(plan.rng.u64(..100))).await;
    }
    let redaction = plan.redaction();
    loop {
        let executor = Executor::begin(&world, &redaction, plan.script.limit);
        let dies = (world.state().faulty() && plan.rng.u8(..3) > 0)
            .then(|| Duration::from_millis(plan.rng.u64(..15_000)));
        let stops = plan.rng.bool();
        let shutdown = executor.shutdown.clone();
        let mut work = tokio::spawn(async move { executor.work().await });
        let left = match dies {
            None => (&mut work).await.unwrap(),
            Some(after) => match timeout(after, &mut work).await {
                Ok(left) => left.unwrap(),
                Err(_) if stops => {
                    shutdown.cancel();
                    work.await.unwrap();
                    Left::Later
                }
                Err(_) => {
                    work.abort();
                    let _ = work.await;
                    Left::Later
                }
            },
        };
        match left {
            Left::Over if !shutdown.is_cancelled() => break,
            Left::Gone => break,
            Left::Over | Left::Later => {
                if world.state().is_gone() && !world.state().faulty() {
                    break;
                }
                // The next one is up in a while, or the next round comes.
                sleep(Duration::from_millis(plan.rng.u64(..3_000))).await;
            }
        }
    }
    check(plan, &world);
}

fn check(plan: &Plan, world: &World) {
    let state = world.state();
    assert!(state.wrong.is_empty(), "{:?}", state.wrong);
    for (bytes, truth) in state.bytes.iter().zip(&plan.script.output) {
        assert!(bytes.len() <= truth.len());
        let wrong = bytes
            .iter()
            .zip(truth)
            .position(|(found, byte)| found != byte && !(plan.secret && *found == b'*'));
        assert_eq!(wrong, None, "a byte out of its place, of {} recorded", bytes.len());
        if plan.secret {
            check_masked(bytes, truth);
        }
    }
    // Two executors may have heard the two streams in another order: then each of them has its own part of what the limit lets through.
    assert!(state.bytes.iter().all(|bytes| bytes.len() as u64 <= plan.script.limit));
    let total: u64 = plan.script.output.iter().map(|bytes| bytes.len() as u64).sum();
    if plan.script.vanishes_after.is_some() && state.is_gone() {
        return;
    }
    // Whatever befell it, in the end all is recorded.
    let record = state.record.as_ref().unwrap();
    assert!(record.is_over() && !record.pending, "{record:?}");
    assert!(state.recorded_in_all() >= total.min(plan.script.limit));
    let Some(ExecEnd::Exited { code: 3, ended, .. }) = &record.end else { panic!("{record:?}") };
    let after_end: u64 = plan.script.after_end.iter().sum();
    // What was left running may be recorded in part before the end is told again.
    let written = ended.stdout_bytes + ended.stderr_bytes + ended.truncated_bytes;
    assert!((total - after_end..=total).contains(&written), "{ended:?}");
    assert_eq!((state.ends.len(), ended.output_open), (1 + usize::from(after_end > 0), after_end > 0));
    if let [_, EventData::Exec(ExecEvent::OutputClosed(closed))] = &state.ends[..]
        && plan.script.limit >= total
    {
        assert_eq!(
            [closed.stdout_bytes, closed.stderr_bytes],
            state.bytes.each_ref().map(|bytes| bytes.len() as u64)
        );
    }
}

/// No more than three characters of a secret are told, wherever it was cut on its way, and nothing else is masked.
fn check_masked(bytes: &[u8], truth: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        let whole = truth[at..].starts_with(SECRET.as_bytes()) && at + SECRET.len() <= bytes.len();
        if whole {
            let masked = &bytes[at..at + SECRET.len()];
            let clear = masked.iter().filter(|byte| **byte != b'*').count();
            assert!(clear <= 3, "{:?}", String::from_utf8_lossy(masked));
            at += SECRET.len();
        } else {
            let plain = truth[at].is_ascii_uppercase();
            assert!(!plain || bytes[at] == truth[at], "masked without a reason, at {at}");
            at += 1;
        }
    }
}

/// Long after what may go wrong has gone wrong.
const PATIENCE: Duration = Duration::from_secs(3600);

fn simulate(seeds: std::ops::RangeInclusive<u64>) {
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                let mut plan = Plan::of(seed);
                timeout(PATIENCE, run(&mut plan)).await.expect("it is never recorded");
            });
        });
        if let Err(cause) = outcome {
            eprintln!("the seed is {seed}: STACYVM_SIMULATION_SEED={seed} replays it");
            std::panic::resume_unwind(cause);
        }
    }
}

#[test]
fn each_byte_is_recorded_once_whatever_is_lost_or_dies() {
    match std::env::var("STACYVM_SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => simulate(seed..=seed),
        None => simulate(0..=99),
    }
}
