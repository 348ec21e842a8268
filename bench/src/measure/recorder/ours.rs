use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use async_trait::async_trait;
use bytes::Bytes;
use events::{ExecState, Frame, Position, StreamMark, encode_recorded_batch};
use record::Head;
use recorder::{Messages, Transport};
use store::open_store;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use transport::{ProbeFailure, PublishError, RecorderLag, SourceError, SourceMessage, StreamPlace};

use super::workload::Workload;

/// Records all of it into an empty database: how long it took.
pub async fn record(url: &str, work: &Workload) -> anyhow::Result<Duration> {
    let store = open_store(url).await?;
    let (heads, mut seen) = mpsc::unbounded_channel();
    let transport = FromMemory { messages: Arc::new(work.messages.clone()), heads };
    let stop = CancellationToken::new();
    let began = Instant::now();
    let running = tokio::spawn(recorder::run(transport, store.clone(), stop.clone()));
    let end = work.events as u64;
    while let Some(head) = seen.recv().await {
        if head.0 >= end {
            break;
        }
    }
    let took = began.elapsed();
    stop.cancel();
    running.await?;
    let head = store.head().await?.position.0;
    ensure!(head == end, "{head} of {end} events are in the log");
    Ok(took)
}

/// A transport whose messages are all here already.
struct FromMemory {
    messages: Arc<Vec<Bytes>>,
    heads: mpsc::UnboundedSender<Position>,
}

struct Reader {
    messages: Arc<Vec<Bytes>>,
    next: usize,
}

#[async_trait]
impl Transport for FromMemory {
    type Messages = Reader;

    async fn messages(&self, head: &Head) -> Result<Reader, SourceError> {
        Ok(Reader { messages: Arc::clone(&self.messages), next: head.stream_sequence as usize })
    }

    async fn announce(&self, frames: &[Frame]) {
        std::hint::black_box(encode_recorded_batch(frames));
    }

    async fn announce_head(&self, head: Position, _: RecorderLag) {
        let _ = self.heads.send(head);
    }

    async fn announce_mark(&self, mark: &StreamMark) {
        std::hint::black_box(mark);
    }

    async fn announce_progress(&self, execs: &[ExecState]) {
        std::hint::black_box(execs);
    }

    async fn answer(&self, _: &[String], _: Result<(), ProbeFailure>) {}

    async fn bury(&self, _payload: Bytes) -> Result<(), PublishError> {
        // Then the head falls short, and the measurement fails.
        Ok(())
    }

    async fn forget(&self, _mark: &StreamMark) -> Result<(), SourceError> {
        Ok(())
    }
}

#[async_trait]
impl Messages for Reader {
    fn incarnation(&self) -> &str {
        "bench"
    }

    fn gap(&self) -> Option<u64> {
        None
    }

    async fn next(&mut self) -> Result<SourceMessage, SourceError> {
        match self.next_ready() {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    fn next_ready(&mut self) -> Option<Result<SourceMessage, SourceError>> {
        let payload = self.messages.get(self.next)?.clone();
        self.next += 1;
        Some(Ok(SourceMessage {
            place: Some(StreamPlace { sequence: self.next as u64, published_us: 0, pending: 0 }),
            payload,
            probe: None,
            node: None,
        }))
    }
}
