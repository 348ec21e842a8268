//! Every reader is given what it asked for once each and in order, whatever was not heard, whoever is slow, and however often it was
//! interrupted.

use std::time::Duration;

use events::{EventData, ExecEvent, ExecId, OutputStream, Position, SandboxId};
use fastrand::Rng;
use tokio::time::{sleep, timeout};

use super::*;
use crate::simulated::{Author, Said, World, byte};

/// Long after what may go wrong has gone wrong.
const PATIENCE: Duration = Duration::from_secs(3600);

fn seeds() -> std::ops::RangeInclusive<u64> {
    match std::env::var("STACYVM_SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => seed..=seed,
        None => 0..=9,
    }
}

/// Runs a simulation for each seed, under a clock of its own.
pub(crate) fn simulate<F: Future<Output = ()>>(run: impl Fn(u64) -> F) {
    for seed in seeds() {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                timeout(PATIENCE, run(seed)).await.expect("somebody waits for what never comes");
            });
        }));
        if let Err(cause) = outcome {
            eprintln!("the seed is {seed}: STACYVM_SIMULATION_SEED={seed} replays it");
            std::panic::resume_unwind(cause);
        }
    }
}

/// Records at random for a while, and tells what there was when it is done.
pub(crate) async fn record(world: &World, author: &mut Author, batches: u32) {
    for _ in 0..batches {
        world.record(author.batch());
        sleep(Duration::from_millis(world.random(400))).await;
    }
}

/// Reads one at a time or many, now slowly and now quickly, and now and then gives up waiting.
struct Reading {
    rng: Rng,
    got: Vec<Position>,
}

impl Reading {
    fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), got: Vec::new() }
    }

    async fn rest(&mut self) {
        let pause = match self.rng.u8(..200) {
            0 => 20_000,
            1..10 => 200,
            _ => return,
        };
        sleep(Duration::from_millis(self.rng.u64(..pause))).await;
    }

    fn patience(&mut self) -> Duration {
        Duration::from_millis(if self.rng.u8(..4) == 0 { self.rng.u64(..300) } else { 100_000 })
    }

    fn take(&mut self, position: Position) {
        assert!(self.got.last().is_none_or(|last| *last < position), "{position} again, or out of order");
        self.got.push(position);
    }
}

fn wanted(world: &World, after: Position, is_wanted: impl Fn(&Event) -> bool) -> Vec<Position> {
    let all = world.events().into_iter();
    all.filter(|(position, event)| *position > after && is_wanted(event))
        .map(|(position, _)| position)
        .collect()
}

async fn read_topic(mut reader: FeedReader, until: Position, seed: u64) -> Vec<Position> {
    let mut reading = Reading::new(seed);
    while reader.cursor() < until {
        reading.rest().await;
        let patience = reading.patience();
        match timeout(patience, reader.next()).await {
            Ok(Ok(recorded)) => {
                reading.take(recorded.position());
                assert_eq!(reader.cursor(), recorded.position());
            }
            Ok(Err(FeedError::Disconnected)) => panic!("it has ended"),
            Ok(Err(FeedError::Store(_))) | Err(_) => {}
        }
    }
    reading.got
}

async fn read_log(mut reader: LogReader, until: Position, seed: u64) -> Vec<Position> {
    let mut reading = Reading::new(seed);
    while reader.cursor() < until {
        reading.rest().await;
        let (patience, most) = (reading.patience(), 1 + reading.rng.usize(..50));
        match timeout(patience, reader.next(most)).await {
            Ok(Ok(frames)) => {
                assert!(!frames.is_empty() && frames.len() <= most);
                frames.iter().for_each(|frame| reading.take(frame.position));
            }
            Ok(Err(FeedError::Disconnected)) => panic!("it has ended"),
            Ok(Err(FeedError::Store(_))) | Err(_) => {}
        }
    }
    reading.got
}

async fn read_types(mut reader: EventReader, until: Position, seed: u64) -> Vec<Position> {
    let mut reading = Reading::new(seed);
    let mut passed = reader.passed();
    while reader.passed() < until {
        reading.rest().await;
        let (patience, most) = (reading.patience(), 1 + reading.rng.usize(..50));
        let before = reading.got.len();
        match timeout(patience, reader.next(most)).await {
            Ok(Ok(events)) => events.iter().for_each(|recorded| reading.take(recorded.position())),
            Ok(Err(FeedError::Disconnected)) => panic!("it has ended"),
            Ok(Err(FeedError::Store(_))) | Err(_) => {}
        }
        // Whoever keeps this as a cursor leaves out nothing.
        assert!(reader.passed() >= passed);
        passed = reader.passed();
        assert!(reading.got[before..].iter().all(|position| *position <= passed));
    }
    reading.got
}

const SOME_TYPES: [&str; 2] = ["sandbox.requested", "exec.exited"];

#[test]
fn every_reader_is_given_what_it_wants_once_and_in_order() {
    simulate(async |seed| {
        let world = World::new(seed, Duration::from_secs(30));
        let mut author = Author::new(seed);
        // Some of it is there before anybody looks.
        record(&world, &mut author, 10).await;
        let feed = Feed::follow(Said(world.clone()), world.as_record()).await.unwrap();
        let mut rng = Rng::with_seed(seed);
        let mut readers = Vec::new();
        for round in 0..8u64 {
            record(&world, &mut author, 12).await;
            let after = Position(rng.u64(..=world.events().len() as u64));
            let (_, about) = world.events().swap_remove(rng.usize(..world.events().len()));
            let exec = about.data.exec();
            let topic = match (rng.u8(..3), about.sandbox, exec) {
                (0, Some(sandbox), _) => Topic::Sandbox(sandbox),
                (1, _, Some(exec)) => Topic::Exec(exec),
                _ => Topic::All,
            };
            let filter = topic.filter();
            readers.push((
                after,
                topic,
                feed.subscribe(topic, After::Position(after)),
                feed.log_reader(filter, rng.bool(), after),
                feed.event_reader(&SOME_TYPES, after),
                seed * 100 + round,
            ));
        }
        record(&world, &mut author, 40).await;
        // The last of all, about everything that anybody reads.
        let mut last = Vec::new();
        for (_, topic, ..) in &readers {
            last.extend(world.last_words(*topic));
        }
        world.record(last);
        let tasks: Vec<_> = readers
            .into_iter()
            .map(|(after, topic, reader, log_reader, event_reader, seed)| {
                let world = world.clone();
                tokio::spawn(async move {
                    let of_topic = wanted(&world, after, |event| topic_has(topic, event));
                    let of_types =
                        wanted(&world, after, |event| SOME_TYPES.contains(&event.data.type_name()));
                    let end = of_topic.last().copied().unwrap_or(after);
                    let head = Position(world.events().len() as u64);
                    let (topics, log, types) = tokio::join!(
                        read_topic(reader, end, seed),
                        read_log(log_reader, end, seed + 1),
                        read_types(
                            event_reader,
                            of_types.last().copied().unwrap_or(after).max(after),
                            seed + 2
                        ),
                    );
                    assert_eq!(topics, of_topic);
                    assert_eq!(log, of_topic);
                    assert_eq!(types, of_types);
                    assert!(head >= end);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        assert!(feed.inner.topics.is_empty(), "nobody listens any more");
        assert_eq!(feed.head(), Position(world.events().len() as u64));
    });
}

fn topic_has(topic: Topic, event: &Event) -> bool {
    match topic {
        Topic::All => true,
        Topic::Sandbox(sandbox) => event.sandbox == Some(sandbox),
        Topic::Exec(exec) => event.data.exec() == Some(exec),
        Topic::Job(job) => event.data.job() == Some(job),
    }
}

/// Reads the output of an exec from some offsets on, and begins anew there where the store fails.
async fn read_output(feed: &Feed, world: &World, exec: ExecId, mut from: [u64; 2]) -> ([Vec<u8>; 2], u32) {
    let mut got = [Vec::new(), Vec::new()];
    let mut ends = 0;
    loop {
        let mut reader = match feed.exec_output(exec, from[0], from[1]).await {
            Ok(reader) => reader,
            Err(FeedError::Store(_)) => {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            Err(FeedError::Disconnected) => panic!("it has ended"),
        };
        loop {
            match reader.next().await {
                Ok(Some(OutputItem::Output { stream, offset, bytes, .. })) => {
                    let index = usize::from(stream == OutputStream::Stderr);
                    assert_eq!(offset, from[index]);
                    from[index] += bytes.len() as u64;
                    got[index].extend_from_slice(&bytes);
                }
                Ok(Some(OutputItem::Ended { open, .. })) => {
                    assert!(!open);
                    ends += 1;
                }
                Ok(Some(OutputItem::Started)) => {}
                Ok(Some(other)) => panic!("{other:?}"),
                Ok(None) => return (got, ends),
                Err(FeedError::Store(_)) => break,
                Err(FeedError::Disconnected) => panic!("it has ended"),
            }
        }
        assert!(world.is_faulty());
    }
}

#[test]
fn whoever_reads_output_is_given_each_byte_once_and_then_the_end() {
    simulate(async |seed| {
        let world = World::new(seed, Duration::from_secs(30));
        let mut author = Author::new(seed);
        record(&world, &mut author, 30).await;
        let feed = Feed::follow(Said(world.clone()), world.as_record()).await.unwrap();
        let mut rng = Rng::with_seed(seed);
        let mut tasks = Vec::new();
        for _ in 0..12 {
            record(&world, &mut author, 6).await;
            let exec = author.all_execs[rng.usize(..author.all_execs.len())];
            let written = lengths(&world, exec);
            let from = written.map(|length| rng.u64(..=length));
            let (feed, world) = (feed.clone(), world.clone());
            tasks.push(tokio::spawn(async move {
                let (got, ends) = read_output(&feed, &world, exec, from).await;
                for ((stream, from), got) in STREAMS.into_iter().zip(from).zip(got) {
                    let whole = lengths(&world, exec)[usize::from(stream == OutputStream::Stderr)];
                    assert!(got.iter().copied().eq((from..whole).map(|at| byte(stream, at))));
                }
                assert_eq!(ends, 1);
            }));
        }
        record(&world, &mut author, 20).await;
        world.record(author.ends());
        for task in tasks {
            task.await.unwrap();
        }
    });
}

const STREAMS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

fn lengths(world: &World, exec: ExecId) -> [u64; 2] {
    let mut lengths = [0, 0];
    for (_, event) in world.events() {
        if let EventData::Exec(ExecEvent::Output(output)) = &event.data
            && output.exec == exec
        {
            lengths[usize::from(output.stream == OutputStream::Stderr)] = output.offset + output.length();
        }
    }
    lengths
}

#[tokio::test(start_paused = true)]
async fn a_recorder_that_says_nothing_is_noticed() {
    let world = World::new(1, Duration::ZERO);
    let feed = Feed::follow(Said(world.clone()), world.as_record()).await.unwrap();
    sleep(Duration::from_secs(10)).await;
    assert!(feed.silent_for() <= Duration::from_secs(1));
    world.falls_silent();
    sleep(Duration::from_secs(10)).await;
    assert!(feed.silent_for() >= Duration::from_secs(9));
    assert!(feed.recorder_lag().age >= Duration::from_secs(9));
    let sandbox = SandboxId::new();
    let reader = feed.subscribe(Topic::Sandbox(sandbox), After::Now);
    assert_eq!(reader.cursor(), feed.head());
}
