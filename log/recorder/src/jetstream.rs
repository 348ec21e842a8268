use async_trait::async_trait;
use bytes::Bytes;
use events::{ExecState, Frame, Position, StreamMark};
use record::Head;
use transport::{
    Announcer, EventSource, ExecProgress, Log, ProbeFailure, PublishError, RecorderLag, SourceError,
    SourceMessage,
};

use super::run::{Messages, Transport};

/// The real transport: JetStream in, core NATS out.
#[derive(Clone)]
pub struct JetStreamTransport {
    log: Log,
    announcer: Announcer,
}

impl JetStreamTransport {
    /// A transport on this connection.
    pub fn new(log: &Log) -> Self {
        Self { log: log.clone(), announcer: Announcer::new(log) }
    }
}

#[async_trait]
impl Transport for JetStreamTransport {
    type Messages = EventSource;

    async fn messages(&self, head: &Head) -> Result<EventSource, SourceError> {
        self.log.event_source(head.stream_sequence, &head.incarnation).await
    }

    async fn announce(&self, frames: &[Frame]) {
        self.announcer.batch(frames).await;
    }

    async fn announce_head(&self, head: Position, lag: RecorderLag) {
        self.announcer.head(head, lag).await;
    }

    async fn announce_mark(&self, mark: &StreamMark) {
        self.log.say_recorded(mark).await;
    }

    async fn announce_progress(&self, execs: &[ExecState]) {
        let said = execs.iter().filter_map(|exec| Some((exec.id, ExecProgress::of(exec)?)));
        self.log.say_progress(said).await;
    }

    async fn answer(&self, probes: &[String], outcome: Result<(), ProbeFailure>) {
        self.log.answer_probes(probes, outcome).await;
    }

    async fn bury(&self, payload: Bytes) -> Result<(), PublishError> {
        self.log.bury("event", payload).await
    }

    async fn forget(&self, mark: &StreamMark) -> Result<(), SourceError> {
        self.log.purge_events(mark).await
    }
}

#[async_trait]
impl Messages for EventSource {
    fn incarnation(&self) -> &str {
        Self::incarnation(self)
    }

    fn gap(&self) -> Option<u64> {
        Self::gap(self)
    }

    async fn next(&mut self) -> Result<SourceMessage, SourceError> {
        Self::next(self).await
    }

    fn next_ready(&mut self) -> Option<Result<SourceMessage, SourceError>> {
        Self::next_ready(self)
    }
}
