use std::time::Instant;

use serde_json::json;

use crate::floor::Twins;
use crate::report::{Row, Target, ms};
use crate::rig::Rig;
use crate::stats::Samples;

/// `true`, from the HTTP request to the full result, with every event of it in the database; beside create and start of
/// an engine exec to the end of its output.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.serve().await?;
    let sandbox = serve.spawn(json!({})).await?;
    let twins = Twins::of(rig, &sandbox).await?;
    let twin = twins.start(twins.prepare()?).await?;
    for _ in 0..5 {
        serve.exec(&sandbox, &["true"]).await?;
        twin.exec(&["true"]).await?;
    }
    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..rig.size(300, 20) {
        let began = Instant::now();
        serve.exec(&sandbox, &["true"]).await?;
        ours.push_time(began.elapsed());
        let began = Instant::now();
        twin.exec(&["true"]).await?;
        floor.push_time(began.elapsed());
    }
    // After a 30 ms pause everything is cold: caches, branch predictors, the clock of the CPU. A client that goes on at
    // once sees this instead.
    let mut back_to_back = Samples::default();
    for _ in 0..rig.size(1000, 50) {
        let began = Instant::now();
        serve.exec(&sandbox, &["true"]).await?;
        back_to_back.push_time(began.elapsed());
    }
    twin.remove().await?;
    serve.destroy(&sandbox).await?;
    let p50 = |samples: &Samples| (samples.p50(), ms(samples.p50()));
    let p95 = |samples: &Samples| (samples.p95(), ms(samples.p95()));
    let note = format!(
        "{} each, alternating; ours back to back, without the floor in between: p50 {}, p95 {}",
        ours.len(),
        ms(back_to_back.p50()),
        ms(back_to_back.p95())
    );
    Ok(vec![
        Row::compared("exec `true`, p50", Target::Faster(12.0), p50(&ours), p50(&floor)).note(note),
        Row::compared("exec `true`, p95", Target::NoneOfTime, p95(&ours), p95(&floor)),
    ])
}
