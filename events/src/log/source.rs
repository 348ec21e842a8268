//! What the recorder reads: every message of the stream of events, in order, from a sequence on.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};

use super::Log;
use crate::{StreamMark, Subjects};

/// Marks a message that holds no events: somebody wants to know whether what is published gets recorded. Its value is where
/// the recorder answers, or something else when only the acknowledgement is wanted.
pub(super) const PROBE: &str = "Stacyvm-Probe";
/// How many bytes may be under way to the recorder.
const PULL_BYTES: usize = 16 << 20;

/// Why the stream cannot be read. A later try can succeed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the stream of events: {context}")]
pub struct SourceError {
    context: &'static str,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl SourceError {
    fn new(context: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { context, source: Some(source.into()) }
    }
}

/// One message of the stream: a batch of events.
#[derive(Debug, Clone)]
pub struct SourceMessage {
    /// Its place in the stream.
    pub sequence: u64,
    /// The batch.
    pub payload: Bytes,
    /// When the transport took it, by its clock, in microseconds since 1970.
    pub published_us: i64,
    /// How many messages come after it at the moment.
    pub pending: u64,
    /// Where somebody waits to hear that it is recorded.
    pub probe: Option<String>,
    /// The node whose executor published it, where one did: the server lets nobody else.
    pub node: Option<Arc<str>>,
}

/// A reader of the stream of events.
pub struct EventSource {
    subjects: Subjects,
    messages: pull::Stream,
    next_sequence: u64,
    incarnation: String,
    gap: Option<u64>,
}

impl Log {
    /// Reads the stream after `sequence`, if it is still the stream of `incarnation`; a stream that was made anew is
    /// read from its start.
    pub async fn event_source(&self, sequence: u64, incarnation: &str) -> Result<EventSource, SourceError> {
        if let Err(error) = self.ensure_streams().await {
            return Err(SourceError::new("cannot create it", error));
        }
        let stream = self
            .jetstream
            .get_stream(self.subjects().events_stream())
            .await
            .map_err(|error| SourceError::new("cannot find it", error))?;
        let info = stream.cached_info();
        let found = super::streams::incarnation(info);
        // A stream that lost its tail in a crash counts on from a lower number than was recorded.
        let same = found == incarnation && info.state.last_sequence >= sequence;
        let first = info.state.first_sequence.max(1);
        let next_sequence = if same { first.max(sequence + 1) } else { first };
        // Only what is recorded is forgotten. So there is a later record than the one that was asked about.
        let gap = (same && first > sequence + 1).then_some(first);
        // Nothing recorded, nothing lost: the first start of all.
        if !same && sequence > 0 {
            tracing::warn!(
                recorded = sequence,
                first = info.state.first_sequence,
                last = info.state.last_sequence,
                "the stream of events is new or lost its tail: reading all that it has"
            );
        }
        let consumer = stream
            .create_consumer(pull::Config {
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: next_sequence },
                ack_policy: AckPolicy::None,
                inactive_threshold: Duration::from_secs(30),
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            })
            .await
            .map_err(|error| SourceError::new("cannot create a consumer", error))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(2_000)
            .max_bytes_per_batch(PULL_BYTES)
            .expires(Duration::from_secs(30))
            .heartbeat(Duration::from_secs(1))
            .messages()
            .await
            .map_err(|error| SourceError::new("cannot pull", error))?;
        Ok(EventSource {
            subjects: self.subjects().clone(),
            messages,
            next_sequence,
            incarnation: found,
            gap,
        })
    }

    /// Forgets what has been recorded: everything up to and including this message. A stream that was made anew counts from
    /// 1 again, and holds nothing of what is meant.
    pub async fn purge_events(&self, mark: &StreamMark) -> Result<(), SourceError> {
        let stream = self
            .jetstream
            .get_stream(self.subjects().events_stream())
            .await
            .map_err(|error| SourceError::new("cannot find it", error))?;
        let info = stream.cached_info();
        if super::streams::incarnation(info) != mark.incarnation || info.state.last_sequence < mark.sequence {
            return Ok(());
        }
        stream
            .purge()
            .sequence(mark.sequence + 1)
            .await
            .map_err(|error| SourceError::new("cannot purge", error))?;
        Ok(())
    }
}

impl EventSource {
    /// Which stream this is: one that is made anew has another.
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// The first message that there is, where those before it that were asked for are forgotten already. Either somebody else
    /// has recorded them since, or the record is an old copy.
    pub const fn gap(&self) -> Option<u64> {
        self.gap
    }

    /// The next message. After an error this source is of no more use.
    pub async fn next(&mut self) -> Result<SourceMessage, SourceError> {
        match self.messages.next().await {
            Some(message) => self.accept(message),
            None => Err(SourceError { context: "it ended", source: None }),
        }
    }

    /// The next message, if it is here already.
    pub fn next_ready(&mut self) -> Option<Result<SourceMessage, SourceError>> {
        let message = self.messages.next().now_or_never()??;
        Some(self.accept(message))
    }

    fn accept(
        &mut self,
        message: Result<async_nats::jetstream::Message, async_nats::jetstream::consumer::pull::MessagesError>,
    ) -> Result<SourceMessage, SourceError> {
        let message = message.map_err(|error| SourceError::new("a pull failed", error))?;
        let info = message.info().map_err(|error| SourceError::new("no sequence", error))?;
        let sequence = info.stream_sequence;
        let published_us = i64::try_from(info.published.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX);
        let pending = info.pending;
        // Sequences have no holes here: only what is recorded is purged, and that from the front.
        if sequence != self.next_sequence {
            return Err(SourceError { context: "a message was skipped on the way", source: None });
        }
        self.next_sequence += 1;
        let probe = message.headers.as_ref().and_then(|headers| headers.get(PROBE));
        // Answers go where this deployment listens for them, and nowhere else.
        let probe = probe.map(|probe| probe.as_str()).filter(|probe| probe.starts_with("_INBOX."));
        let probe = probe.map(str::to_owned);
        let node = self.subjects.node_of_event(&message.subject).map(Arc::from);
        // Anybody may publish there: it is never an event.
        let is_probe = *message.subject == *self.subjects.probe();
        let payload = if is_probe { Bytes::new() } else { message.message.payload };
        Ok(SourceMessage { sequence, payload, published_us, pending, probe, node })
    }
}
