//! What is typed reaches the process once and in order, over however many connections that break at any moment.
//!
//! The agent here is a mock that speaks the real protocol and counts writers as the real one does: what it simulates are connections
//! that break before and after bytes were taken, that cannot be made for a while, words that are never heard, and a process that
//! reads when it likes. The real agent's input is in its own tests.

use std::sync::{Mutex, MutexGuard};

use agent::client::{Client, Connect, ConnectFuture, Connection};
use agent::protocol::{FrameError, FrameReader, FrameWriter, Hello, Input, Refusal, Reply, Request};
use events::{SandboxId, TenantId};
use fastrand::Rng;
use secrets::Redaction;
use tokio::io::DuplexStream;
use tokio::time::{sleep, sleep_until, timeout};

use super::*;
use crate::hosted::idle_provider;

#[derive(Clone)]
struct Agent(Arc<Mutex<State>>);

struct State {
    rng: Rng,
    faults_until: Instant,
    /// When it goes for good.
    gone_at: Option<Instant>,
    /// After so many bytes the process reads no more.
    closes_after: usize,
    /// What the process was given.
    given: Vec<u8>,
    /// The newest opening, and what was taken of the writer.
    opening: u64,
    taken: u64,
    openings_at_once: u32,
    most_at_once: u32,
}

impl Agent {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let begin = Instant::now();
        let state = State {
            faults_until: begin + Duration::from_secs(rng.u64(..60)),
            gone_at: (rng.u8(..5) == 0).then(|| begin + Duration::from_millis(rng.u64(..60_000))),
            closes_after: if rng.u8(..5) == 0 { rng.usize(..20_000) } else { usize::MAX },
            given: Vec::new(),
            opening: 0,
            taken: 0,
            openings_at_once: 0,
            most_at_once: 0,
            rng,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn pause(&self, most_ms: u64) {
        let pause = self.state().rng.u64(..most_ms);
        sleep(Duration::from_millis(pause)).await;
    }

    async fn serve(&self, stream: DuplexStream) -> Result<(), FrameError> {
        let (read, write) = tokio::io::split(stream);
        let (mut reader, mut writer) = (FrameReader::new(read), FrameWriter::new(write));
        let Some(hello) = Hello::receive(&mut reader).await? else { return Ok(()) };
        let version = Hello::ours().versions.common(hello.versions).unwrap();
        Hello::ours().send(version, &mut writer).await?;
        reader.speak(version);
        writer.speak(version);
        writer.flush().await?;
        let Some(Request::OpenInput { .. }) = reader.receive::<Request>().await? else { return Ok(()) };
        let (opening, taken) = {
            let mut state = self.state();
            state.opening += 1;
            (state.opening, state.taken)
        };
        writer.send(&Reply::StdinTaken { offset: taken }).await?;
        writer.flush().await?;
        while let Some(Input::Stdin { bytes }) = reader.receive::<Input>().await? {
            let slowly = self.state().rng.u8(..10) == 0;
            self.pause(if slowly { 4_000 } else { 20 }).await;
            let reply = {
                let mut state = self.state();
                if state.opening != opening {
                    return Ok(());
                }
                if state.given.len() >= state.closes_after {
                    Reply::Refused(Refusal::Exec(ExecRefusal::StdinClosed))
                } else {
                    state.given.extend_from_slice(&bytes);
                    state.taken += bytes.len() as u64;
                    Reply::StdinTaken { offset: state.taken }
                }
            };
            self.pause(20).await;
            writer.send(&reply).await?;
            writer.flush().await?;
        }
        Ok(())
    }
}

impl State {
    fn is_faulty(&self) -> bool {
        Instant::now() < self.faults_until
    }

    fn is_gone(&self) -> bool {
        self.gone_at.is_some_and(|at| at <= Instant::now())
    }
}

impl Connect for Agent {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async move {
            let mut state = self.state();
            let faulty = state.is_faulty();
            if state.is_gone() || faulty && state.rng.u8(..3) == 0 {
                return Err(std::io::ErrorKind::ConnectionRefused.into());
            }
            let breaks = (faulty && state.rng.u8(..4) > 0)
                .then(|| Instant::now() + Duration::from_millis(state.rng.u64(..3_000)));
            let breaks = breaks.into_iter().chain(state.gone_at).min();
            drop(state);
            let (ours, theirs) = tokio::io::duplex(1 << 14);
            let agent = self.clone();
            tokio::spawn(async move {
                {
                    let mut state = agent.state();
                    state.openings_at_once += 1;
                    state.most_at_once = state.most_at_once.max(state.openings_at_once);
                }
                let served = agent.serve(theirs);
                match breaks {
                    Some(at) => tokio::select! { _ = served => {} () = sleep_until(at) => {} },
                    None => {
                        let _ = served.await;
                    }
                }
                agent.state().openings_at_once -= 1;
            });
            Ok(Box::new(ours) as Box<dyn Connection>)
        })
    }

    fn place(&self) -> String {
        "simulated".to_owned()
    }
}

/// Types all of this, a piece at a time, as a gateway's stream of input is passed on.
async fn type_in(
    typing: &mut Typing<'_>,
    pieces: Vec<(Duration, Bytes)>,
) -> Result<(), CallError<ExecRefusal>> {
    let mut pieces = pieces.into_iter();
    let mut next = pieces.next().map(|(pause, bytes)| (Instant::now() + pause, bytes));
    while next.is_some() || !typing.is_settled() {
        let rests_at = typing.rests_at();
        let comes_at = next.as_ref().map(|(at, _)| *at);
        tokio::select! {
            () = sleep_until(comes_at.unwrap_or_else(Instant::now)), if comes_at.is_some() && typing.has_room() => {
                let (_, bytes) = next.take().unwrap();
                next = pieces.next().map(|(pause, bytes)| (Instant::now() + pause, bytes));
                typing.push(bytes).await?;
            }
            settled = typing.settle() => settled?,
            () = sleep_until(rests_at.unwrap_or_else(Instant::now)), if rests_at.is_some() => typing.rest(),
        }
        assert!(typing.waiting.len() as u64 <= 2 * STDIN_WINDOW);
    }
    Ok(())
}

async fn simulate(seed: u64) {
    let agent = Agent::new(seed);
    let mut rng = Rng::with_seed(seed);
    let provider = idle_provider();
    let tenant = TenantId::default_tenant();
    let client = Client::with(agent.clone());
    let hosted = Hosted::new(SandboxId::new(), tenant, provider, client, Redaction::default());
    let places = Arc::new(Semaphore::new(rng.usize(..2)));
    let big = rng.u8(..4) == 0;
    let mut at = 0_u64;
    let pieces: Vec<(Duration, Bytes)> = (0..1 + rng.usize(..150))
        .map(|_| {
            let length = 1 + rng.u64(..if big { 100_000 } else { 40 });
            let bytes: Vec<u8> =
                (at..at + length).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
            at += length;
            // Now a key after the other, and now somebody thinks for longer than a connection is kept.
            let pause = if rng.u8(..60) == 0 { rng.u64(..150_000) } else { rng.u64(..700) };
            (Duration::from_millis(pause), bytes.into())
        })
        .collect();
    let typed: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes.to_vec()).collect();
    let mut typing = Typing::new(&hosted, ExecId::from_bytes([2; 16]), &places);
    let outcome = type_in(&mut typing, pieces).await;
    check(&agent.state(), &typed, outcome);
    drop(typing);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(agent.state().openings_at_once, 0, "nothing is left of them");
    assert!(places.available_permits() <= 1);
}

fn check(state: &State, typed: &[u8], outcome: Result<(), CallError<ExecRefusal>>) {
    assert!(typed.starts_with(&state.given), "a byte is missing, is there twice, or is out of its place");
    match outcome {
        Ok(()) => assert_eq!(state.given.len(), typed.len()),
        Err(CallError::Refused(_)) => assert!(state.given.len() >= state.closes_after),
        Err(error) => assert!(state.is_gone(), "{error}"),
    }
    // A connection that was given up may not have been noticed yet by the agent.
    assert!(state.most_at_once <= 2, "{} connections for one who types", state.most_at_once);
}

#[test]
fn what_is_typed_comes_once_and_in_order_over_connections_that_break() {
    let seeds = match std::env::var("STACYVM_SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..=seed,
        None => 0..=59,
    };
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                timeout(Duration::from_secs(3600), simulate(seed)).await.expect("it never ends");
            });
        });
        if let Err(cause) = outcome {
            eprintln!("the seed is {seed}: STACYVM_SIMULATION_SEED={seed} replays it");
            std::panic::resume_unwind(cause);
        }
    }
}
