//! The promises of the design, held to while processes are killed, stopped and robbed of their disks.
//!
//! Several deployments live through many rounds side by side. In a round clients work in a sandbox and one fault strikes
//! at a random moment; the clients try again as real ones do. What they were told must be true, and the log as a whole
//! must be what it promises to be. All choices follow from a seed; the moments at which processes act do not, so a seed
//! replays the plan and finds the same weakness often, not always.
//!
//! `STACYVM_CHAOS_SEED`: the seed, which is printed. `STACYVM_CHAOS_ROUNDS`: how many rounds in all.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails where it stands")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod deeds;
mod deployment;
mod feed;
mod lane;
mod plan;
mod record;

use lane::Lane;
use plan::Shape;

/// Rounds where nobody says how many.
const ROUNDS: u64 = 210;
/// The deployments, side by side: most of a round is waiting.
const LANES: [Shape; 3] = [Shape::Split, Shape::Split, Shape::Serve];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_promise_is_kept_in_two_hundred_rounds_of_faults() {
    let seed = number("STACYVM_CHAOS_SEED").unwrap_or_else(random);
    let rounds = number("STACYVM_CHAOS_ROUNDS").unwrap_or(ROUNDS);
    eprintln!("STACYVM_CHAOS_SEED={seed} STACYVM_CHAOS_ROUNDS={rounds}");
    let began = std::time::Instant::now();
    let mut lanes = tokio::task::JoinSet::new();
    for (lane, shape) in (0..).zip(LANES) {
        let count = LANES.len() as u64;
        let share = rounds / count + u64::from(lane < rounds % count);
        lanes.spawn(async move { Lane::start(lane, shape, seed).await.run(share).await });
    }
    while let Some(ended) = lanes.join_next().await {
        if let Err(error) = ended {
            panic!("STACYVM_CHAOS_SEED={seed}: {error}");
        }
    }
    eprintln!("{rounds} rounds in {:?}", began.elapsed());
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text:?} is no number")))
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap();
    u64::from_le_bytes(bytes) >> 16
}
