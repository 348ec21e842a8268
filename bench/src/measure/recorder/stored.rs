//! How many bytes the database has for each byte of output, and what the hash chain costs.

use std::time::{Duration, Instant};

use anyhow::Context;
use audit::link;
use events::{ChainHash, Position, decode_batch};
use recorder::{Encode, Encoder, Incoming};
use store::upkeep;

use super::workload::{Content, Workload};
use super::{ours, rate};
use crate::report::{Row, Target, per_second};
use crate::rig::Rig;
use crate::stats::Samples;

/// Bytes in the database, indexes and read models included, for each byte of output.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (content, what, pieces, limit) in [
        (Content::Text, "text in pieces of 64 KiB", rig.size(2_000, 100), Some((0.5, "at most 0.5"))),
        (Content::Noise, "noise in pieces of 64 KiB", rig.size(2_000, 100), Some((1.05, "at most 1.05"))),
        (Content::Lines, "lines of 80 bytes, an event each", rig.size(200_000, 10_000), None),
    ] {
        let work = Workload::of(content, pieces)?;
        let dir = tempfile::Builder::new().prefix("stacyvm-bench-").tempdir()?;
        let url = format!("sqlite:{}", dir.path().join("stored.db").display());
        ours::record(&url, &work).await?;
        let stats = upkeep::stats(&url).await?;
        let ratio = stats.bytes_per_body_byte().context("nothing was stored")?;
        let text = format!("{ratio:.3} bytes");
        let note = format!(
            "{} bytes of output: {} as bodies are kept, {} in all of the database",
            stats.body_bytes, stats.stored_body_bytes, stats.bytes
        );
        let what = format!("stored per byte of output, SQLite, {what}");
        rows.push(Row::limited(&what, ratio, text, limit).note(note));
    }
    Ok(rows)
}

/// The recorder as it is, beside the same run less the time that the hashes take alone.
pub async fn chain_cost(rig: &Rig) -> anyhow::Result<Row> {
    let work = Workload::new(rig.size(200_000, 20_000))?;
    let rounds = rig.size(5, 1);
    let (mut with, mut without) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        let dir = tempfile::Builder::new().prefix("stacyvm-bench-").tempdir()?;
        let url = format!("sqlite:{}", dir.path().join("chain.db").display());
        let took = ours::record(&url, &work).await?;
        let hashing = hashing(&work)?;
        with.push(rate(work.events, took));
        without.push(rate(work.events, took.saturating_sub(hashing)));
    }
    let text = |samples: &Samples| (samples.p50(), per_second(samples.p50()));
    let row = Row::compared(
        "chain cost on the recorder, 256 B, SQLite",
        Target::Rate(0.9),
        text(&with),
        text(&without),
    );
    Ok(row.note("the floor is the same run less the time of the same hashes computed alone"))
}

/// How long the hashes of all bodies and links take.
fn hashing(work: &Workload) -> anyhow::Result<Duration> {
    let mut encoder = Encoder::new()?;
    let mut events = Vec::with_capacity(work.events);
    for message in &work.messages {
        for frame in decode_batch(message.clone(), false)? {
            let Incoming { event, frame, .. } = Incoming::decode(frame)?;
            let stored = encoder.encode(&event, &frame)?.and_then(|body| body.stored);
            events.push((frame.header, stored));
        }
    }
    let mut hash = ChainHash::GENESIS;
    let began = Instant::now();
    for (index, (header, stored)) in events.iter().enumerate() {
        let body_hash = stored.as_ref().map(record::StoredBody::hash);
        hash = link(&hash, Position(index as u64 + 1), header, body_hash.as_ref());
    }
    let took = began.elapsed();
    std::hint::black_box(hash);
    Ok(took)
}
