use std::time::Instant;

use anyhow::ensure;
use serde_json::json;

use crate::floor::Twins;
use crate::report::{Row, Target, mb_per_second};
use crate::rig::Rig;
use crate::serve::{Serve, drain};
use crate::stats::Samples;

/// 500 MB of stdout to one client, with every byte in the log: as raw bytes and as NDJSON; beside the attached stream of
/// an engine exec.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.serve().await?;
    // Two CPUs: the agent shares the limit of its sandbox with the producer, and it is not the limit that is measured.
    let sandbox = serve.spawn(json!({"vcpus": 2})).await?;
    let twins = Twins::of(rig, &sandbox).await?;
    let twin = twins.start(twins.prepare()?).await?;
    let bytes: u64 = rig.size(500_000_000, 50_000_000);
    let rounds = rig.size(3, 1);
    let zeros = format!("head -c {bytes} /dev/zero");
    // NUL bytes would be six characters each in JSON, which says nothing about text.
    let text = format!("yes {} | head -c {bytes}", "0123456789".repeat(8));
    let (mut raw, mut raw_floor, mut lines, mut lines_floor) =
        <(Samples, Samples, Samples, Samples)>::default();
    for _ in 0..rounds {
        raw.push(ours(serve, &sandbox, &zeros, bytes, Form::Raw).await?);
        raw_floor.push(engine(&twin, &zeros, bytes).await?);
        lines.push(ours(serve, &sandbox, &text, bytes, Form::Ndjson).await?);
        lines_floor.push(engine(&twin, &text, bytes).await?);
    }
    twin.remove().await?;
    serve.destroy(&sandbox).await?;
    let rate = |samples: &Samples| (samples.p50(), mb_per_second(samples.p50()));
    let size = bytes / 1_000_000;
    Ok(vec![
        Row::compared(&format!("{size} MB of stdout, raw"), Target::Rate(0.5), rate(&raw), rate(&raw_floor))
            .note(format!("median of {rounds}; the record was asked afterwards and has every byte")),
        Row::compared(
            &format!("{size} MB of stdout, NDJSON"),
            Target::Rate(0.5),
            rate(&lines),
            rate(&lines_floor),
        )
        .note("lines of text; the rate is of bytes of output, not of JSON"),
    ])
}

#[derive(Clone, Copy)]
enum Form {
    Raw,
    Ndjson,
}

/// Bytes a second.
async fn ours(serve: &Serve, sandbox: &str, line: &str, bytes: u64, form: Form) -> anyhow::Result<f64> {
    let began = Instant::now();
    let (exec, answer) = serve.start_streamed(sandbox, line).await?;
    let took = match form {
        Form::Raw => {
            // The command goes on without a client; the bytes come by the exec's id, from the first one on.
            drop(answer);
            let read = drain(serve.output(&exec).await?).await?;
            let took = began.elapsed();
            ensure!(read == bytes, "{read} of {bytes} bytes arrived");
            took
        }
        Form::Ndjson => {
            let read = drain(answer).await?;
            let took = began.elapsed();
            ensure!(read > bytes, "{read} bytes of NDJSON for {bytes} bytes of output");
            took
        }
    };
    let recorded = serve.recorded_bytes(&exec).await?;
    ensure!(recorded == bytes, "{recorded} of {bytes} bytes are in the record");
    Ok(bytes as f64 / took.as_secs_f64())
}

async fn engine(twin: &crate::floor::Twin, line: &str, bytes: u64) -> anyhow::Result<f64> {
    let began = Instant::now();
    let read = twin.exec(&["/bin/sh", "-c", line]).await?;
    ensure!(read == bytes, "the engine gave {read} of {bytes} bytes");
    Ok(bytes as f64 / began.elapsed().as_secs_f64())
}
