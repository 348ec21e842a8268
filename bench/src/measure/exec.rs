use std::time::{Duration, Instant};

use serde_json::json;

use crate::floor::{Twin, Twins};
use crate::report::{Row, Target, ms};
use crate::rig::Rig;
use crate::serve::Serve;
use crate::stats::Samples;

/// Execs of one variant before it is the turn of the other.
const BLOCK: usize = 10;
/// How long the machine is left alone between turns. An engine exec goes on for a while after its last byte (its runtime
/// cleans up), and that must not be on the bill of whoever comes next.
const REST: Duration = Duration::from_millis(60);

#[derive(Default)]
struct Pair {
    ours: Samples,
    floor: Samples,
}

/// `true`, from the HTTP request to the full result, with every event of it in the database; beside create and start of
/// an engine exec to the end of its output. Twice: one after the other as a busy client does it, and each from a machine
/// at rest, where every process and every CPU on the way has to be woken.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.serve().await?;
    let sandbox = serve.spawn(json!({})).await?;
    let twins = Twins::of(rig, &sandbox).await?;
    let twin = twins.start(twins.prepare()?).await?;
    turns(serve, &sandbox, &twin, 1, 5).await?;
    let busy = turns(serve, &sandbox, &twin, rig.size(40, 3), BLOCK).await?;
    let rested = turns(serve, &sandbox, &twin, rig.size(150, 10), 1).await?;
    twin.remove().await?;
    serve.destroy(&sandbox).await?;
    let p50 = |samples: &Samples| (samples.p50(), ms(samples.p50()));
    let p95 = |samples: &Samples| (samples.p95(), ms(samples.p95()));
    let note = format!("{} each, in turns of {BLOCK} without pause", busy.ours.len());
    let alone = format!("{} each, in turns of 1 with {REST:?} of rest before each", rested.ours.len());
    let target = Target::Faster(12.0);
    Ok(vec![
        Row::compared("exec `true`, p50", target, p50(&busy.ours), p50(&busy.floor)).note(note),
        Row::compared("exec `true`, p95", Target::NoneOfTime, p95(&busy.ours), p95(&busy.floor)),
        Row::compared("exec `true` after a rest, p50", target, p50(&rested.ours), p50(&rested.floor))
            .note(alone),
        Row::compared(
            "exec `true` after a rest, p95",
            Target::NoneOfTime,
            p95(&rested.ours),
            p95(&rested.floor),
        ),
    ])
}

async fn turns(serve: &Serve, sandbox: &str, twin: &Twin, turns: usize, each: usize) -> anyhow::Result<Pair> {
    let mut pair = Pair::default();
    for _ in 0..turns {
        tokio::time::sleep(REST).await;
        for _ in 0..each {
            let began = Instant::now();
            serve.exec(sandbox, &["true"]).await?;
            pair.ours.push_time(began.elapsed());
        }
        tokio::time::sleep(REST).await;
        for _ in 0..each {
            let began = Instant::now();
            twin.exec(&["true"]).await?;
            pair.floor.push_time(began.elapsed());
        }
    }
    Ok(pair)
}
