//! Taking commands: pull is placement and backpressure.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::ConsumerErrorKind;
use async_nats::jetstream::{self, AckKind, ErrorCode};
use events::{CommandEnvelope, NodeId, PoolName, without_values};
use futures::StreamExt;

use super::Log;
use super::publish::AGAIN;

/// How long a command may go without a sign of progress before another executor gets it.
///
/// Those who work on one show it twice a second: this many times in vain, and they are gone.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// The same of a command that only one executor can carry out: it gets again what was lost on the way to it.
const ACK_WAIT_OF_NODE: Duration = Duration::from_secs(2);
/// How often the server shows that a pull is alive. Two in vain, and it is begun anew: elsewhere, in a cluster.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// After how many failures in a row it is asked whether a consumer of a cluster is still there.
const FAILURES: u32 = 10;

/// Why no command could be taken. A later try can succeed.
#[derive(Debug, thiserror::Error)]
#[error("cannot take commands")]
pub struct ConsumeError(#[source] Box<dyn std::error::Error + Send + Sync>);

/// One queue of commands.
pub struct CommandConsumer {
    log: Log,
    durable: String,
    subject: String,
    ack_wait: Duration,
    consumer: Option<PullConsumer>,
    stream: Option<pull::Stream>,
    /// How often in a row nothing could be taken, and whether the consumer is to be asked for again.
    failures: u32,
    in_doubt: bool,
}

/// A command, and the duty to say what became of it.
pub struct Delivery {
    /// The command.
    pub envelope: CommandEnvelope,
    /// 1 for the first delivery, more when an earlier one was not acknowledged in time, or when the command was sent again
    /// because it may have been lost.
    pub attempt: i64,
    message: jetstream::Message,
}

impl Log {
    /// The commands that any executor of the pool may take.
    pub fn pool_commands(&self, pool: &PoolName) -> CommandConsumer {
        CommandConsumer::new(self, format!("spawn-{pool}"), self.subjects().spawn(pool), ACK_WAIT)
    }

    /// The commands for sandboxes of this node.
    pub fn node_commands(&self, node: &NodeId) -> CommandConsumer {
        let subject = self.subjects().node_commands(node);
        CommandConsumer::new(self, format!("node-{node}"), subject, ACK_WAIT_OF_NODE)
    }
}

impl CommandConsumer {
    fn new(log: &Log, durable: String, subject: String, ack_wait: Duration) -> Self {
        Self {
            log: log.clone(),
            durable,
            subject,
            ack_wait,
            consumer: None,
            stream: None,
            failures: 0,
            in_doubt: false,
        }
    }

    /// The next command, as soon as there is one; many may be in flight.
    pub async fn next(&mut self) -> Result<Delivery, ConsumeError> {
        loop {
            if self.stream.is_none() {
                let stream = self
                    .consumer()
                    .await?
                    .stream()
                    .max_messages_per_batch(64)
                    .expires(Duration::from_secs(30))
                    .heartbeat(HEARTBEAT)
                    .messages()
                    .await
                    .map_err(|error| ConsumeError(error.into()))?;
                self.stream = Some(stream);
            }
            let Some(stream) = self.stream.as_mut() else {
                continue;
            };
            match stream.next().await {
                Some(Ok(message)) => {
                    self.failures = 0;
                    if let Some(delivery) = self.read(message).await {
                        return Ok(delivery);
                    }
                }
                // It is asked again by the same name, which takes nobody's consent: of a cluster, this may be all that answers.
                Some(Err(error)) if error.kind() == pull::MessagesErrorKind::MissingHeartbeat => {
                    tracing::debug!(consumer = self.durable, "a pull is silent: beginning another one");
                    self.stream = None;
                }
                Some(Err(error)) => return Err(self.reset(error)),
                None => self.stream = None,
            }
        }
    }

    /// One command, or nothing if none came within `patience`. Takes no more than this one from the queue.
    pub async fn take_one(&mut self, patience: Duration) -> Result<Option<Delivery>, ConsumeError> {
        let batch = self
            .consumer()
            .await?
            // Without heartbeats, which make it forget to wake us: one that is lost with its server is missed for twice
            // `patience`.
            .batch()
            .max_messages(1)
            .expires(patience)
            .messages_wait()
            .await;
        match batch {
            Ok(Some(message)) => Ok(self.read(message).await),
            Ok(None) => Ok(None),
            Err(error) => Err(self.reset(error)),
        }
    }

    fn reset(&mut self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ConsumeError {
        self.stream = None;
        self.failures = self.failures.wrapping_add(1);
        // In a cluster it has no leader for a while, now and then, and is there again soon: to ask for it takes other nodes.
        self.in_doubt = !self.log.config.is_cluster() || self.failures.is_multiple_of(FAILURES);
        ConsumeError(error.into())
    }

    async fn consumer(&mut self) -> Result<PullConsumer, ConsumeError> {
        let in_doubt = std::mem::take(&mut self.in_doubt);
        if let Some(consumer) = &self.consumer
            && !in_doubt
        {
            return Ok(consumer.clone());
        }
        let config = pull::Config {
            durable_name: Some(self.durable.clone()),
            filter_subject: self.subject.clone(),
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            max_deliver: -1,
            max_ack_pending: 20_000,
            ..pull::Config::default()
        };
        let stream = self.log.subjects().commands_stream();
        let created = self.log.brisk.create_consumer_on_stream(config, stream).await;
        match created {
            Ok(consumer) => {
                self.consumer = Some(consumer.clone());
                Ok(consumer)
            }
            Err(error) => {
                // A server that lost its store has no stream to consume from.
                let gone = matches!(error.kind(), ConsumerErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND);
                if (gone || !self.log.config.is_cluster())
                    && let Err(error) = self.log.ensure_streams().await
                {
                    tracing::debug!(error = %error, "the streams cannot be made");
                }
                match &self.consumer {
                    // Nobody says so: it may be asked all the same.
                    Some(consumer) if !gone && self.log.config.is_cluster() => Ok(consumer.clone()),
                    _ => {
                        self.consumer = None;
                        Err(ConsumeError(error.into()))
                    }
                }
            }
        }
    }

    /// Reads a message; what cannot be read is kept aside and never delivered again.
    async fn read(&self, message: jetstream::Message) -> Option<Delivery> {
        let sent_again = message.headers.as_ref().is_some_and(|headers| headers.get(AGAIN).is_some());
        let attempt = message.info().map_or(1, |info| info.delivered) + i64::from(sent_again);
        match serde_json::from_slice(&message.payload) {
            Ok(envelope) => Some(Delivery { envelope, attempt, message }),
            Err(error) => {
                // It holds values of variables.
                let error = without_values(&error);
                tracing::error!(%error, subject = %message.subject, "a command cannot be read");
                if self.log.bury("command", message.payload.clone()).await.is_ok() {
                    // One that is not told of comes again, and is put aside once: the same message has the same id.
                    if let Err(error) = message.ack_with(AckKind::Term).await {
                        tracing::warn!(error = %error, "a command that cannot be read was not ended");
                    }
                }
                None
            }
        }
    }
}

/// `Batch` is a stream that ends; only its first message is wanted here.
trait FirstMessage {
    async fn messages_wait(
        self,
    ) -> Result<Option<jetstream::Message>, Box<dyn std::error::Error + Send + Sync>>;
}

impl FirstMessage for pull::BatchBuilder<'_> {
    async fn messages_wait(
        self,
    ) -> Result<Option<jetstream::Message>, Box<dyn std::error::Error + Send + Sync>> {
        let mut batch = self.messages().await?;
        batch.next().await.transpose()
    }
}

impl Delivery {
    /// The effect is durable: forget the command.
    pub async fn ack(&self) {
        self.settle(AckKind::Ack).await;
    }

    /// Still at work: do not give it to anybody else.
    pub async fn progress(&self) {
        self.settle(AckKind::Progress).await;
    }

    /// Not now: deliver it again after `delay`.
    pub async fn retry(&self, delay: Duration) {
        self.settle(AckKind::Nak(Some(delay))).await;
    }

    async fn settle(&self, kind: AckKind) {
        // An acknowledgement that is lost leads to a redelivery, which every command survives by its id.
        if let Err(error) = self.message.ack_with(kind).await {
            tracing::debug!(error = %error, command.id = %self.envelope.id, "acknowledgement not sent");
        }
    }
}
