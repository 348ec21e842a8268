use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::future::try_join_all;
use futures::{SinkExt, StreamExt};
use reqwest::Response;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::report::{Row, Target, mb_per_second};
use crate::rig::Rig;
use crate::serve::{Serve, drain};
use crate::stats::Samples;

const VIEWERS: usize = 100;
/// As large as the pieces that output comes in.
const PIECE: usize = 64 << 10;

/// One exec watched by 100 clients from before its first byte; beside a server that does nothing but hand the same bytes
/// to 100 WebSockets.
pub async fn run(rig: &Rig) -> anyhow::Result<Vec<Row>> {
    let serve = rig.serve().await?;
    let sandbox = serve.spawn(json!({"vcpus": 2})).await?;
    let bytes: usize = rig.size(20_000_000, 2_000_000);
    let rounds = rig.size(3, 1);
    let (mut raw, mut lines, mut floor) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..rounds {
        raw.push(ours(serve, &sandbox, bytes, Form::Raw).await?);
        floor.push(websockets(bytes).await?);
        lines.push(ours(serve, &sandbox, bytes, Form::Ndjson).await?);
    }
    serve.destroy(&sandbox).await?;
    let rate = |samples: &Samples| (samples.p50(), mb_per_second(samples.p50()));
    let what = |form: &str| format!("fan-out to {VIEWERS} viewers, {form}");
    let note = format!(
        "{} MB of output to each, all viewers together; the viewers run in the bench, on the same CPUs; the floor sends \
         64 KiB WebSocket frames",
        bytes / 1_000_000
    );
    Ok(vec![
        Row::compared(&what("raw HTTP"), Target::Rate(0.5), rate(&raw), rate(&floor)).note(note),
        Row::compared(&what("NDJSON"), Target::NoneOfRate, rate(&lines), rate(&floor))
            .note("bytes of output, not of JSON"),
    ])
}

#[derive(Clone, Copy)]
enum Form {
    Raw,
    Ndjson,
}

/// Bytes delivered a second.
async fn ours(serve: &Serve, sandbox: &str, bytes: usize, form: Form) -> anyhow::Result<f64> {
    serve.exec(sandbox, &["rm", "-f", "/workspace/go"]).await?;
    let wait = "while [ ! -e /workspace/go ]; do sleep 0.05; done";
    let line = format!("{wait}; yes {} | head -c {bytes}", "0123456789".repeat(8));
    let (exec, answer) = serve.start_streamed(sandbox, &line).await?;
    drop(answer);
    let open = |_| async {
        match form {
            Form::Raw => serve.output(&exec).await,
            Form::Ndjson => serve.records(&exec).await,
        }
    };
    let viewers: Vec<Response> = try_join_all((0..VIEWERS).map(open)).await?;
    let viewers: Vec<JoinHandle<_>> = viewers.into_iter().map(|viewer| tokio::spawn(drain(viewer))).collect();
    // The exec of `touch` and the loop that looks every 50 ms are in here: some 30 ms of a second and more.
    let began = Instant::now();
    serve.exec(sandbox, &["touch", "/workspace/go"]).await?;
    for viewer in viewers {
        let read = viewer.await??;
        let complete = match form {
            Form::Raw => read == bytes as u64,
            Form::Ndjson => read > bytes as u64,
        };
        ensure!(complete, "a viewer got {read} bytes for {bytes} bytes of output");
    }
    Ok((bytes * VIEWERS) as f64 / began.elapsed().as_secs_f64())
}

/// The same with nothing but sockets and frames.
async fn websockets(bytes: usize) -> anyhow::Result<f64> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let (ready, all_here) = oneshot::channel();
    let server = tokio::spawn(async move {
        let mut writers = Vec::new();
        for _ in 0..VIEWERS {
            let (socket, _) = listener.accept().await?;
            socket.set_nodelay(true)?;
            let mut socket = tokio_tungstenite::accept_async(socket).await?;
            let (pieces, mut queue) = mpsc::channel::<Bytes>(16);
            writers.push(pieces);
            tokio::spawn(async move {
                while let Some(piece) = queue.recv().await {
                    socket.send(Message::Binary(piece)).await?;
                }
                socket.close(None).await
            });
        }
        let _ = ready.send(());
        let piece = Bytes::from(vec![b'x'; PIECE]);
        let mut left = bytes;
        while left > 0 {
            let piece = piece.slice(..left.min(PIECE));
            left -= piece.len();
            for writer in &writers {
                writer.send(piece.clone()).await.ok().context("a viewer left")?;
            }
        }
        anyhow::Ok(())
    });
    let connect = |_| async move {
        let socket = TcpStream::connect(address).await?;
        let (socket, _) = tokio_tungstenite::client_async("ws://localhost/", socket).await?;
        anyhow::Ok(socket)
    };
    // One after the other: a backlog that overflows costs a second.
    let mut viewers = Vec::new();
    for number in 0..VIEWERS {
        let mut viewer = tokio::time::timeout(Duration::from_secs(10), connect(number)).await??;
        viewers.push(tokio::spawn(async move {
            let mut total = 0;
            while let Some(message) = viewer.next().await {
                match message? {
                    Message::Binary(piece) => total += piece.len(),
                    Message::Close(_) => break,
                    Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
                }
            }
            anyhow::Ok(total)
        }));
    }
    all_here.await?;
    let began = Instant::now();
    for viewer in viewers {
        let read = viewer.await??;
        ensure!(read == bytes, "a viewer got {read} of {bytes} bytes");
    }
    let took = began.elapsed();
    server.await??;
    Ok((bytes * VIEWERS) as f64 / took.as_secs_f64())
}
