use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::attached::Attached;
use crate::floor::{Terminal, Twins};
use crate::report::{Row, Target, ms};
use crate::rig::Rig;
use crate::stats::Samples;

/// Between two keys: faster than anybody types, and slow enough that each finds the way empty.
const PAUSE: Duration = Duration::from_millis(15);
/// Keys in a row of one variant.
const TURN: usize = 20;

/// One key typed into a terminal, to its echo on the screen, with the echo in the database; beside the same through the
/// terminal of an engine exec (`docker exec -it`). The echo is the kernel's: the program only has to be there.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.serve().await?;
    let sandbox = serve.spawn(json!({})).await?;
    let twins = Twins::of(rig, &sandbox).await?;
    let twin = twins.start(twins.prepare()?).await?;
    let exec = serve.start_terminal(&sandbox, "cat >/dev/null").await?;
    let mut ours = serve.attach(&exec).await?;
    let mut floor = twin.terminal(&["/bin/sh", "-c", "cat >/dev/null"]).await?;
    let (mut of_ours, mut of_floor) = (Samples::default(), Samples::default());
    type_ours(&mut ours, 5, &mut Samples::default()).await?;
    type_floor(&mut floor, 5, &mut Samples::default()).await?;
    for _ in 0..rig.size(25, 2) {
        type_ours(&mut ours, TURN, &mut of_ours).await?;
        type_floor(&mut floor, TURN, &mut of_floor).await?;
    }
    drop((ours, floor));
    twin.remove().await?;
    serve.destroy(&sandbox).await?;
    let p50 = |samples: &Samples| (samples.p50(), ms(samples.p50()));
    let p95 = |samples: &Samples| (samples.p95(), ms(samples.p95()));
    Ok(vec![
        Row::compared("keystroke echo, p50", Target::NoneOfTime, p50(&of_ours), p50(&of_floor)).note(
            format!(
                "{} keys each, in turns of {TURN}, {PAUSE:?} apart; ours is recorded before it is shown",
                of_ours.len()
            ),
        ),
        Row::compared("keystroke echo, p95", Target::NoneOfTime, p95(&of_ours), p95(&of_floor)),
    ])
}

/// Letters, so that an echo tells which key it is of.
fn keys(count: usize) -> impl Iterator<Item = u8> {
    (0..count).map(|index| b'a' + (index % 26) as u8)
}

async fn type_ours(terminal: &mut Attached, count: usize, samples: &mut Samples) -> anyhow::Result<()> {
    for key in keys(count) {
        tokio::time::sleep(PAUSE).await;
        let began = Instant::now();
        terminal.input(&[key]).await?;
        let echo = terminal.output().await?.context("the terminal is gone")?;
        samples.push_time(began.elapsed());
        ensure!(echo[..] == [key], "typed {key}, got {echo:?}");
    }
    Ok(())
}

async fn type_floor(terminal: &mut Terminal, count: usize, samples: &mut Samples) -> anyhow::Result<()> {
    for key in keys(count) {
        tokio::time::sleep(PAUSE).await;
        let began = Instant::now();
        terminal.input(&[key]).await?;
        let echo = terminal.output().await?.context("the terminal is gone")?;
        samples.push_time(began.elapsed());
        ensure!(echo[..] == [key], "typed {key}, got {echo:?}");
    }
    Ok(())
}
