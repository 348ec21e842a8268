//! What the recorder reads: every message of the stream of events, in order, from a sequence on.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{Info, RawMessageErrorKind};
use bytes::Bytes;
use events::StreamMark;
use futures::{FutureExt, StreamExt};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Log;
use super::offers::Offers;

/// Marks a message that holds no events: somebody wants to know whether what is published gets recorded. Its value is where
/// the recorder answers, or something else when only the acknowledgement is wanted.
pub(super) const PROBE: &str = "Stacyvm-Probe";
/// How many bytes may be under way to the recorder.
const PULL_BYTES: usize = 16 << 20;
/// How often the server shows that the consumer is there. Two in vain, and another one is made.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How often the leader is asked while there is no consumer, how long it may be silent, and how often a consumer is tried to be
/// made.
const ASK_AGAIN: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(10);
const MAKE_AGAIN: Duration = Duration::from_millis(100);

/// Why the stream cannot be read. A later try can succeed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the stream of events: {context}")]
pub struct SourceError {
    context: &'static str,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    /// Whether asking again is of no use.
    is_final: bool,
}

impl SourceError {
    fn new(context: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { context, source: Some(source.into()), is_final: false }
    }
}

/// Where a message stands in the stream, and when it came.
#[derive(Debug, Clone, Copy)]
pub struct StreamPlace {
    /// Its number.
    pub sequence: u64,
    /// When the transport took it, by its clock, in microseconds since 1970.
    pub published_us: i64,
    /// How many messages come after it at the moment.
    pub pending: u64,
}

/// A batch of events.
#[derive(Debug, Clone)]
pub struct SourceMessage {
    /// Its place in the stream. `None` where it was only offered: whoever offered it still has it, and sends it on through the
    /// stream unless he hears that it is recorded.
    pub place: Option<StreamPlace>,
    /// The batch.
    pub payload: Bytes,
    /// Where somebody waits to hear that it is recorded.
    pub probe: Option<String>,
    /// The node whose executor published it, where one did: the server lets nobody else.
    pub node: Option<Arc<str>>,
}

/// What the recorder reads: the stream of events, and beside it what executors offer.
pub struct EventSource {
    stream: StreamReader,
    offers: Option<Offers>,
    /// Whose turn it is when both are ready.
    offer_first: bool,
}

/// A reader of the stream of events.
struct StreamReader {
    log: Log,
    reading: Reading,
    next_sequence: u64,
    incarnation: String,
    gap: Option<u64>,
}

/// From where messages come.
enum Reading {
    /// A consumer, which the server keeps on one node.
    Pulled(Box<pull::Stream>),
    /// The leader of the stream, message by message, until there is another consumer.
    Asked { consumer: JoinHandle<Result<pull::Stream, SourceError>>, answered_at: Instant },
}

impl Log {
    /// Reads the stream after `sequence`, if it is still the stream of `incarnation`; a stream that was made anew is
    /// read from its start.
    pub async fn event_source(&self, sequence: u64, incarnation: &str) -> Result<EventSource, SourceError> {
        let info = match self.events_info().await {
            Err(error) if is_gone(&error) => {
                if let Err(error) = self.ensure_streams().await {
                    return Err(SourceError::new("cannot create it", error));
                }
                self.events_info().await
            }
            info => info,
        };
        let info = info.map_err(|error| SourceError::new("cannot find it", error))?;
        let found = super::streams::incarnation(&info);
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
        let offers = self.offers().await;
        let reading = Reading::asked(self, next_sequence, &found);
        let stream = StreamReader { log: self.clone(), reading, next_sequence, incarnation: found, gap };
        Ok(EventSource { stream, offers, offer_first: true })
    }

    /// The stream of events, as its leader sees it.
    async fn events_info(&self) -> Result<Info, GetStreamError> {
        let stream = self.brisk.get_stream(self.subjects().events_stream()).await?;
        Ok(stream.cached_info().clone())
    }

    /// What the leader of the stream has at this place, and how many come after it.
    async fn ask_for_event(
        &self,
        sequence: u64,
        incarnation: &str,
    ) -> Result<Option<(StreamMessage, u64)>, SourceError> {
        let stream = self.brisk.get_stream_no_info(self.subjects().events_stream()).await;
        let stream = stream.map_err(|error| SourceError::new("cannot find it", error))?;
        let message = match stream.get_raw_message(sequence).await {
            Ok(message) => Some(message),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => None,
            Err(error) => {
                let is_final = matches!(error.kind(), RawMessageErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND);
                return Err(SourceError {
                    is_final,
                    ..SourceError::new("its leader does not answer", error)
                });
            }
        };
        let info = self.still(incarnation).await?;
        let pending = info.state.last_sequence.saturating_sub(sequence);
        Ok(message.map(|message| (message, pending)))
    }

    /// That it is still the same stream. Asked after something was read or made, so that it is the stream of that: none comes
    /// back.
    async fn still(&self, incarnation: &str) -> Result<Info, SourceError> {
        let info = self.events_info().await.map_err(|error| {
            let is_final = is_gone(&error);
            SourceError { is_final, ..SourceError::new("cannot find it", error) }
        })?;
        if super::streams::incarnation(&info) == incarnation {
            Ok(info)
        } else {
            Err(SourceError { context: "it was made anew", source: None, is_final: true })
        }
    }

    /// Makes a consumer that begins at a message of this stream.
    async fn pull_events(&self, start_sequence: u64, incarnation: &str) -> Result<pull::Stream, SourceError> {
        let stream = self
            .jetstream
            .get_stream_no_info(self.subjects().events_stream())
            .await
            .map_err(|error| SourceError::new("cannot find it", error))?;
        let consumer = stream
            .create_consumer(pull::Config {
                deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
                ack_policy: AckPolicy::None,
                inactive_threshold: Duration::from_secs(30),
                memory_storage: true,
                num_replicas: 1,
                ..pull::Config::default()
            })
            .await
            .map_err(|error| SourceError::new("cannot create a consumer", error))?;
        self.still(incarnation).await?;
        consumer
            .stream()
            .max_messages_per_batch(2_000)
            .max_bytes_per_batch(PULL_BYTES)
            .expires(Duration::from_secs(30))
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|error| SourceError::new("cannot pull", error))
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
        &self.stream.incarnation
    }

    /// The first message that there is, where those before it that were asked for are forgotten already. Either somebody else
    /// has recorded them since, or the record is an old copy.
    pub const fn gap(&self) -> Option<u64> {
        self.stream.gap
    }

    /// The next message, of the stream or offered. After an error this source is of no more use. Cancel safe.
    pub async fn next(&mut self) -> Result<SourceMessage, SourceError> {
        match &mut self.offers {
            Some(offers) if self.stream.is_pulled() => tokio::select! {
                biased;
                offer = offers.next() => Ok(offer),
                message = self.stream.next() => message,
            },
            // Whoever asks the leader message by message must not be kept from it. What is offered comes through the stream.
            Some(offers) => {
                while offers.next_ready().is_some() {}
                self.stream.next().await
            }
            None => self.stream.next().await,
        }
    }

    /// The next message, if it is here already.
    pub fn next_ready(&mut self) -> Option<Result<SourceMessage, SourceError>> {
        // In turns: whatever either of them brings, the other one does not stand behind all of it.
        self.offer_first = !self.offer_first;
        if self.offer_first {
            self.ready_offer().or_else(|| self.stream.next_ready())
        } else {
            self.stream.next_ready().or_else(|| self.ready_offer())
        }
    }

    fn ready_offer(&mut self) -> Option<Result<SourceMessage, SourceError>> {
        if !self.stream.is_pulled() {
            return None;
        }
        self.offers.as_mut()?.next_ready().map(Ok)
    }
}

impl StreamReader {
    const fn is_pulled(&self) -> bool {
        matches!(self.reading, Reading::Pulled(_))
    }

    async fn next(&mut self) -> Result<SourceMessage, SourceError> {
        loop {
            match &mut self.reading {
                Reading::Pulled(messages) => match messages.next().await {
                    Some(Ok(message)) => {
                        if let Some(message) = self.pulled(message)? {
                            return Ok(message);
                        }
                    }
                    Some(Err(error)) => {
                        tracing::info!(error = %error, "the consumer of events is silent or gone: another one is made");
                        self.reading = Reading::asked(&self.log, self.next_sequence, &self.incarnation);
                    }
                    None => return Err(SourceError { context: "it ended", source: None, is_final: true }),
                },
                Reading::Asked { consumer, answered_at } => {
                    let asked = tokio::select! {
                        biased;
                        made = consumer => {
                            let made = made.map_err(|error| SourceError::new("no consumer is made", error))?;
                            self.reading = Reading::Pulled(Box::new(made?));
                            continue;
                        }
                        asked = self.log.ask_for_event(self.next_sequence, &self.incarnation) => asked,
                    };
                    match asked {
                        Ok(found) => {
                            *answered_at = Instant::now();
                            if let Some((message, pending)) = found
                                && let Some(message) = self.asked(message, pending)?
                            {
                                return Ok(message);
                            }
                        }
                        Err(error) if error.is_final || answered_at.elapsed() >= PATIENCE => {
                            return Err(error);
                        }
                        Err(error) => {
                            tracing::debug!(error = %events::ErrorChain(&error), "the stream of events does not answer");
                        }
                    }
                    sleep(ASK_AGAIN).await;
                }
            }
        }
    }

    fn next_ready(&mut self) -> Option<Result<SourceMessage, SourceError>> {
        loop {
            let Reading::Pulled(messages) = &mut self.reading else { return None };
            // What is wrong with it is seen by whoever waits.
            let message = messages.next().now_or_never()??;
            match message {
                Ok(message) => match self.pulled(message) {
                    Ok(None) => {}
                    Ok(Some(message)) => return Some(Ok(message)),
                    Err(error) => return Some(Err(error)),
                },
                Err(error) => {
                    tracing::info!(error = %error, "the consumer of events is silent or gone: another one is made");
                    self.reading = Reading::asked(&self.log, self.next_sequence, &self.incarnation);
                }
            }
        }
    }

    fn asked(&mut self, message: StreamMessage, pending: u64) -> Result<Option<SourceMessage>, SourceError> {
        let place = StreamPlace {
            sequence: message.sequence,
            published_us: microseconds(message.time.unix_timestamp_nanos()),
            pending,
        };
        self.accept(place, &message.subject, Some(&message.headers), message.payload)
    }

    fn pulled(
        &mut self,
        message: async_nats::jetstream::Message,
    ) -> Result<Option<SourceMessage>, SourceError> {
        let info = message.info().map_err(|error| SourceError::new("no sequence", error))?;
        let place = StreamPlace {
            sequence: info.stream_sequence,
            published_us: microseconds(info.published.unix_timestamp_nanos()),
            pending: info.pending,
        };
        let message = message.message;
        self.accept(place, &message.subject, message.headers.as_ref(), message.payload)
    }

    /// `None`: it was read before, from elsewhere.
    fn accept(
        &mut self,
        place: StreamPlace,
        subject: &str,
        headers: Option<&HeaderMap>,
        payload: Bytes,
    ) -> Result<Option<SourceMessage>, SourceError> {
        let sequence = place.sequence;
        if sequence < self.next_sequence {
            return Ok(None);
        }
        // Sequences have no holes here: only what is recorded is purged, and that from the front.
        if sequence != self.next_sequence {
            return Err(SourceError {
                context: "a message was skipped on the way",
                source: None,
                is_final: true,
            });
        }
        self.next_sequence += 1;
        let probe = headers.and_then(|headers| headers.get(PROBE));
        // Answers go where this deployment listens for them, and nowhere else.
        let probe = probe.map(|probe| probe.as_str()).filter(|probe| probe.starts_with("_INBOX."));
        let probe = probe.map(str::to_owned);
        let subjects = self.log.subjects();
        let node = subjects.node_of_event(subject).map(Arc::from);
        // Anybody may publish there: it is never an event.
        let payload = if *subject == *subjects.probe() { Bytes::new() } else { payload };
        Ok(Some(SourceMessage { place: Some(place), payload, probe, node }))
    }
}

impl Reading {
    /// From the leader, while a consumer is made that begins at a message. Whether one can be made hangs on other nodes than the
    /// stream does: on the leader of the whole cluster, and on the node that it is given to, which may be the one that is frozen.
    fn asked(log: &Log, start_sequence: u64, incarnation: &str) -> Self {
        let (log, incarnation) = (log.clone(), incarnation.to_owned());
        let consumer = tokio::spawn(async move {
            loop {
                match log.pull_events(start_sequence, &incarnation).await {
                    Ok(messages) => return Ok(messages),
                    Err(error) if error.is_final => return Err(error),
                    Err(error) => {
                        tracing::debug!(error = %events::ErrorChain(&error), "no consumer of events yet");
                        sleep(MAKE_AGAIN).await;
                    }
                }
            }
        });
        Self::Asked { consumer, answered_at: Instant::now() }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Self::Asked { consumer, .. } = self {
            consumer.abort();
        }
    }
}

fn microseconds(nanoseconds: i128) -> i64 {
    i64::try_from(nanoseconds / 1_000).unwrap_or(i64::MAX)
}

fn is_gone(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND)
}
