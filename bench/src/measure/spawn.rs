use std::time::Instant;

use serde_json::json;

use crate::floor::Twins;
use crate::report::{Row, Target, ms};
use crate::rig::Rig;
use crate::stats::Samples;

/// From the request to 201 with a running sandbox, whose agent has answered and whose start is in the log; beside create
/// and start of the same container. And the way back.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.serve().await?;
    let sample = serve.spawn(json!({})).await?;
    let twins = Twins::of(rig, &sample).await?;
    serve.destroy(&sample).await?;
    twins.start(twins.prepare()?).await?.remove().await?;

    let (mut ours, mut ours_away, mut floor, mut floor_away) =
        <(Samples, Samples, Samples, Samples)>::default();
    for _ in 0..rig.size(40, 5) {
        let began = Instant::now();
        let sandbox = serve.spawn(json!({})).await?;
        ours.push_time(began.elapsed());
        let began = Instant::now();
        serve.destroy(&sandbox).await?;
        ours_away.push_time(began.elapsed());

        let order = twins.prepare()?;
        let began = Instant::now();
        let twin = twins.start(order).await?;
        floor.push_time(began.elapsed());
        let began = Instant::now();
        twin.remove().await?;
        floor_away.push_time(began.elapsed());
    }
    let text =
        |samples: &Samples| (samples.p50(), format!("p50 {}, p95 {}", ms(samples.p50()), ms(samples.p95())));
    let note = format!("{} each; the floor does not wait for the agent", ours.len());
    Ok(vec![
        Row::compared("spawn, cold", Target::AtMost(1.1), text(&ours), text(&floor)).note(note),
        Row::compared("destroy", Target::NoneOfTime, text(&ours_away), text(&floor_away)),
    ])
}
