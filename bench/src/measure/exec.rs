use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::counts::{Switches, Syncs};
use crate::floor::{Twin, Twins};
use crate::report::{Row, Target, ms};
use crate::rig::Rig;
use crate::serve::Serve;
use crate::stats::Samples;

/// Execs of one variant before it is the turn of the other.
const BLOCK: usize = 20;
/// How long the machine is left alone between turns. An engine exec goes on for a while after its last byte (its runtime
/// cleans up), and that must not be on the bill of whoever comes next.
const REST: Duration = Duration::from_millis(60);

/// Execs over which writes to disk and context switches are counted.
const COUNTED: usize = 200;

#[derive(Default)]
struct Trio {
    ours: Samples,
    floor: Samples,
    bare: Samples,
}

/// `true`, from the HTTP request to the full result, with every event of it in the database; beside create and start of
/// an engine exec to the end of its output, and beside what remains with no engine at all: fork, exec and wait, and one small
/// write that is synced. Twice: one after the other as a busy client does it, and each from a machine
/// at rest, where every process and every CPU on the way has to be woken.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.serve().await?;
    let sandbox = serve.spawn(json!({})).await?;
    let twins = Twins::of(rig, &sandbox).await?;
    let twin = twins.start(twins.prepare()?).await?;
    turns(serve, &sandbox, &twin, 1, 5).await?;
    let busy = turns(serve, &sandbox, &twin, rig.size(20, 2), BLOCK).await?;
    let rested = turns(serve, &sandbox, &twin, rig.size(150, 10), 1).await?;
    let (syncs, switches) = counts(serve, &sandbox).await?;
    twin.remove().await?;
    serve.destroy(&sandbox).await?;
    let p50 = |samples: &Samples| (samples.p50(), ms(samples.p50()));
    let p95 = |samples: &Samples| (samples.p95(), ms(samples.p95()));
    let note = format!("{} each, in turns of {BLOCK} without pause", busy.ours.len());
    let alone = format!("{} each, in turns of 1 with {REST:?} of rest before each", rested.ours.len());
    let target = Target::Faster(12.0);
    let bare = "exec `true`, p50, against fork + exec + one fsync";
    let counted =
        format!("of the server and its nats-server, over {COUNTED} execs; fsync and fdatasync, by strace");
    Ok(vec![
        Row::compared("exec `true`, p50", target, p50(&busy.ours), p50(&busy.floor)).note(note),
        Row::compared("exec `true`, p95", Target::NoneOfTime, p95(&busy.ours), p95(&busy.floor)),
        Row::compared(bare, Target::AtMost(2.5), p50(&busy.ours), p50(&busy.bare)),
        Row::compared("exec `true` after a rest, p50", target, p50(&rested.ours), p50(&rested.floor))
            .note(alone),
        Row::compared(
            "exec `true` after a rest, p95",
            Target::NoneOfTime,
            p95(&rested.ours),
            p95(&rested.floor),
        ),
        Row::limited("writes synced to disk an exec", syncs, format!("{syncs:.2}"), None).note(counted),
        Row::limited("context switches an exec", switches, format!("{switches:.0}"), None),
    ])
}

/// Those who are here for a machine at rest, each for its own sake: times are not taken while anybody counts.
async fn counts(serve: &Serve, sandbox: &str) -> anyhow::Result<(f64, f64)> {
    let processes = [serve.pid().context("the server is gone")?, serve.nats_pid()?];
    let run = async || {
        for _ in 0..COUNTED {
            serve.exec(sandbox, &["true"]).await?;
        }
        anyhow::Ok(())
    };
    let before = Switches::of(&processes)?;
    run().await?;
    let switches = Switches::of(&processes)?.since(&before);
    let counting = Syncs::count(&processes).await?;
    run().await?;
    let syncs = counting.stop().await?;
    let each = |count: u64| count as f64 / COUNTED as f64;
    Ok((each(syncs), each(switches)))
}

async fn turns(serve: &Serve, sandbox: &str, twin: &Twin, turns: usize, each: usize) -> anyhow::Result<Trio> {
    let mut trio = Trio::default();
    let mut file = tempfile::tempfile()?;
    for _ in 0..turns {
        tokio::time::sleep(REST).await;
        for _ in 0..each {
            let began = Instant::now();
            serve.exec(sandbox, &["true"]).await?;
            trio.ours.push_time(began.elapsed());
        }
        tokio::time::sleep(REST).await;
        for _ in 0..each {
            let began = Instant::now();
            twin.exec(&["true"]).await?;
            trio.floor.push_time(began.elapsed());
        }
        tokio::time::sleep(REST).await;
        for _ in 0..each {
            let began = Instant::now();
            bare(&mut file)?;
            trio.bare.push_time(began.elapsed());
        }
    }
    Ok(trio)
}

/// What no way around an engine can do without.
fn bare(file: &mut std::fs::File) -> anyhow::Result<()> {
    let status = std::process::Command::new("true").status().context("true")?;
    ensure!(status.success(), "true failed: {status}");
    file.write_all(&[0; 1024])?;
    Ok(file.sync_data()?)
}
