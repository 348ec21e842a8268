use std::time::{Duration, Instant};

use futures::future::try_join_all;
use serde_json::json;

use crate::floor::Twins;
use crate::report::{Row, Target, per_second};
use crate::rig::Rig;
use crate::stats::Samples;

const CLIENTS: usize = 8;

/// How many times `true` runs a second in one sandbox when 8 clients ask without pause.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.serve().await?;
    let sandbox = serve.spawn(json!({})).await?;
    let twins = Twins::of(rig, &sandbox).await?;
    let twin = twins.start(twins.prepare()?).await?;
    let (window, rounds) = rig.size((Duration::from_secs(4), 5), (Duration::from_secs(1), 2));
    let (mut ours, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..rounds {
        ours.push(rate(window, async || serve.exec(&sandbox, &["true"]).await).await?);
        floor.push(rate(window, async || twin.exec(&["true"]).await.map(drop)).await?);
    }
    twin.remove().await?;
    serve.destroy(&sandbox).await?;
    let text = |samples: &Samples| (samples.p50(), per_second(samples.p50()));
    let note = format!("median of {rounds} windows of {window:?} each");
    Ok(vec![
        Row::compared("execs per second, 8 clients", Target::Rate(15.0), text(&ours), text(&floor))
            .note(note),
    ])
}

async fn rate(window: Duration, once: impl AsyncFn() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    let client = async || {
        let mut done: u32 = 0;
        while began.elapsed() < window {
            once().await?;
            done += 1;
        }
        anyhow::Ok(done)
    };
    let done: u32 = try_join_all((0..CLIENTS).map(|_| client())).await?.into_iter().sum();
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}
