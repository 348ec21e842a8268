use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::json;

use crate::report::{Row, Target, ms};
use crate::rig::Rig;
use crate::stats::Samples;

/// Attaching to an exec that has printed much, from its first byte: the time until that byte is there; beside the same
/// with an exec that has printed a line.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.serve().await?;
    let sandbox = serve.spawn(json!({"vcpus": 2})).await?;
    let bytes: u64 = rig.size(100_000_000, 5_000_000);
    let much = format!("yes {} | head -c {bytes}; exec sleep 1000", "0123456789".repeat(8));
    let (long, first) = serve.start_streamed(&sandbox, &much).await?;
    drop(first);
    let (short, second) = serve.start_streamed(&sandbox, "echo ready; exec sleep 1000").await?;
    drop(second);
    for (exec, wanted) in [(&long, bytes), (&short, 6)] {
        let began = Instant::now();
        while serve.recorded_bytes(exec).await? < wanted {
            ensure!(began.elapsed() < Duration::from_secs(120), "the output is not recorded");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let (mut of_long, mut of_short) = (Samples::default(), Samples::default());
    for _ in 0..rig.size(60, 5) {
        for (exec, samples) in [(&long, &mut of_long), (&short, &mut of_short)] {
            let began = Instant::now();
            let mut attached = serve.attach(exec).await?;
            attached.output().await?.context("it ended")?;
            samples.push_time(began.elapsed());
            drop(attached);
            // What was read ahead for the one that left is not on the bill of the next.
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    serve.destroy(&sandbox).await?;
    let text =
        |samples: &Samples| (samples.p50(), format!("p50 {}, p95 {}", ms(samples.p50()), ms(samples.p95())));
    let what = format!("attach to {} MB of scrollback, first byte", bytes / 1_000_000);
    Ok(vec![Row::compared(&what, Target::NoneOfTime, text(&of_long), text(&of_short)).note(format!(
        "{} each, taking turns; the floor is an exec that has printed 6 bytes",
        of_long.len()
    ))])
}
