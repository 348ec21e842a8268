use std::time::Instant;

use anyhow::ensure;
use bollard::query_parameters::{DownloadFromContainerOptions, UploadToContainerOptions};
use bytes::{BufMut, Bytes, BytesMut};
use futures::StreamExt;
use serde_json::json;

use crate::floor::{Twin, Twins};
use crate::report::{Row, Target, mb_per_second};
use crate::rig::Rig;
use crate::serve::drain;
use crate::stats::Samples;

const NAME: &str = "blob";

/// 100 MB into a sandbox and out again; beside the engine's archive calls, which want and give tar.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.serve().await?;
    let sandbox = serve.spawn(json!({"vcpus": 2})).await?;
    let twins = Twins::of(rig, &sandbox).await?;
    let twin = twins.start(twins.prepare()?).await?;
    let size: usize = rig.size(100_000_000, 10_000_000);
    let rounds = rig.size(7, 2);
    let content = content(size);
    let archive = tar(NAME, &content)?;
    let path = format!("/workspace/{NAME}");
    let (mut up, mut up_floor, mut down, mut down_floor) = <(Samples, Samples, Samples, Samples)>::default();
    let rate = |began: Instant| size as f64 / began.elapsed().as_secs_f64();
    for _ in 0..rounds {
        let began = Instant::now();
        serve.upload(&sandbox, &path, content.clone()).await?;
        up.push(rate(began));
        let began = Instant::now();
        let options =
            UploadToContainerOptions { path: "/workspace".to_owned(), ..UploadToContainerOptions::default() };
        twin.docker
            .upload_to_container(&twin.name, Some(options), bollard::body_full(archive.clone()))
            .await?;
        up_floor.push(rate(began));

        let began = Instant::now();
        let read = drain(serve.download(&sandbox, &path).await?).await?;
        down.push(rate(began));
        ensure!(read == size as u64, "{read} of {size} bytes came back");
        let began = Instant::now();
        let read = engine_download(&twin, &path).await?;
        down_floor.push(rate(began));
        ensure!(read >= size as u64, "the engine gave {read} of {size} bytes");
    }
    twin.remove().await?;
    serve.destroy(&sandbox).await?;
    let text = |samples: &Samples| (samples.p50(), mb_per_second(samples.p50()));
    let size = size / 1_000_000;
    let row = |what: &str, ours: &Samples, floor: &Samples| {
        Row::compared(&format!("{size} MB {what}"), Target::NoneOfRate, text(ours), text(floor))
    };
    Ok(vec![
        row("upload", &up, &up_floor).note(format!("median of {rounds}; through gateway, NATS, executor and agent, synced to disk as far as the agent does")),
        row("download", &down, &down_floor),
    ])
}

async fn engine_download(twin: &Twin, path: &str) -> anyhow::Result<u64> {
    let options = DownloadFromContainerOptions { path: path.to_owned() };
    let mut body = std::pin::pin!(twin.docker.download_from_container(&twin.name, Some(options)));
    let mut total = 0;
    while let Some(bytes) = body.next().await {
        total += bytes?.len() as u64;
    }
    Ok(total)
}

/// Bytes that no layer can make smaller.
fn content(size: usize) -> Bytes {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut out = BytesMut::with_capacity(size + 8);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.put_u64(state);
    }
    out.truncate(size);
    out.freeze()
}

/// A tar archive of one file.
fn tar(name: &str, content: &Bytes) -> anyhow::Result<Bytes> {
    const BLOCK: usize = 512;
    let mut header = [0u8; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000644\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    ensure!(name.len() < 100, "the name is too long for this tar");
    let mut out = BytesMut::with_capacity(content.len() + 4 * BLOCK);
    out.put_slice(&header);
    out.put_slice(content);
    // Up to the next block, and two empty ones as the end.
    out.put_bytes(0, content.len().next_multiple_of(BLOCK) - content.len() + 2 * BLOCK);
    Ok(out.freeze())
}
