//! Publishing: durable on return, stored once however often it is tried.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use bytes::Bytes;
use events::{CommandEnvelope, DecodeError, Event, Frame, NodeId, PoolName, encode_batch};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::Log;
use super::condition::{Condition, OVERDUE, Queue, TransportTrouble, answer_of, is_limit, trouble_of};
use super::retained::Kept;

/// How long a publish is tried before its caller is told. Long enough for a cluster to find new leaders, far below the
/// window in which the server knows duplicates.
const PATIENCE: Duration = Duration::from_secs(12);

/// How long the streams are waited for that may have to be made again. A cluster without a leader answers nothing.
const MENDING: Duration = Duration::from_secs(1);
const MENDING_IN_CLUSTER: Duration = Duration::from_millis(400);

/// After how long it is sent again in a cluster, more each time: what was sent to a node that is frozen is lost, and the same
/// message is stored once.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Marks what its publisher takes for lost: it may have been carried out before.
pub(super) const AGAIN: &str = "Stacyvm-Again";

/// Who shall carry out a command.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    /// Whichever executor of the pool has room.
    Pool(&'a PoolName),
    /// The executor that has the sandbox.
    Node(&'a NodeId),
}

/// Why something was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The stream is full: the recorder or the executors are behind. A later try can succeed.
    #[error("the stream is full")]
    Full,
    /// The server cannot be reached or has not answered. Whether it is stored is unknown; a later try with the same id
    /// is safe.
    #[error("NATS did not acknowledge")]
    Unavailable(#[source] async_nats::jetstream::context::PublishError),
    /// It was not even tried, or not waited for: the server is known to take nothing. A later try with the same id is safe.
    #[error("{0}")]
    Refused(TransportTrouble),
    /// It cannot be put into bytes. Trying again does not help.
    #[error("cannot encode")]
    Encode(#[from] DecodeError),
}

/// A publish that is under way.
pub struct PendingPublish {
    ack: PublishAckFuture,
    queue: Queue,
    condition: Arc<Condition>,
}

impl PendingPublish {
    /// Waits until it is durable.
    pub async fn wait(self) -> Result<(), PublishError> {
        self.sequence().await.map(drop)
    }

    async fn sequence(self) -> Result<u64, PublishError> {
        let Self { ack, queue, condition } = self;
        let mut ack = std::pin::pin!(ack.into_future());
        let outcome = match tokio::time::timeout(OVERDUE, &mut ack).await {
            Ok(outcome) => outcome,
            Err(_) => {
                condition.overdue(queue);
                tokio::select! {
                    biased;
                    outcome = &mut ack => outcome,
                    trouble = condition.refused() => return Err(PublishError::Refused(trouble)),
                }
            }
        };
        match outcome {
            Ok(ack) => {
                condition.acknowledged(queue);
                Ok(ack.sequence)
            }
            Err(error) => {
                if answer_of(&error).is_some_and(|answer| trouble_of(answer).is_some()) {
                    condition.overdue(queue);
                }
                Err(classify(error))
            }
        }
    }
}

/// Nobody knows what became of it. It is stored once, however often it is sent.
fn lost() -> PublishError {
    PublishError::Unavailable(PublishErrorKind::TimedOut.into())
}

pub(super) fn classify(error: async_nats::jetstream::context::PublishError) -> PublishError {
    if answer_of(&error).is_some_and(is_limit) {
        return PublishError::Full;
    }
    PublishError::Unavailable(error)
}

impl Log {
    /// Publishes events of one sandbox (or of one tenant, without a sandbox) as one message: all of them or none.
    /// Durable on return.
    pub async fn publish(&self, events: &[Event]) -> Result<(), PublishError> {
        let Some(first) = events.first() else {
            return Ok(());
        };
        let frames: Vec<Frame> = events.iter().map(Event::to_frame).collect::<Result<_, _>>()?;
        let subject = self.subject_of(first);
        let message_id = format!("{}+{}", first.id, events.len());
        self.persist(Kept { subject, id: message_id, payload: encode_batch(&frames), is_command: false })
            .await
    }

    /// Starts to publish an encoded batch whose first event is `first`, without waiting until it is durable. Messages
    /// of one caller reach the stream in the order of these calls, but any of them may fail: the caller goes back to
    /// the first that failed and sends again from there. They carry no id for the server: a message that overtook a
    /// lost one is stored but not recorded, and its second sending must not be taken for a duplicate.
    pub async fn publish_pipelined(
        &self,
        first: &Event,
        batch: Bytes,
    ) -> Result<PendingPublish, PublishError> {
        let subject = self.subject_of(first);
        let ack = self.jetstream.publish(subject, batch).await.map_err(classify)?;
        Ok(self.pending(ack, Queue::Events))
    }

    fn subject_of(&self, event: &Event) -> String {
        let (tenant, sandbox, category) = (&event.tenant, event.sandbox, event.data.category().as_str());
        match &self.node {
            Some(node) => self.subjects().event_of_node(node, tenant, sandbox, category),
            None => self.subjects().event(tenant, sandbox, category),
        }
    }

    /// Sends a command. Durable on return.
    pub async fn send(&self, to: Destination<'_>, command: &CommandEnvelope) -> Result<(), PublishError> {
        let subject = match to {
            Destination::Pool(pool) => self.subjects().spawn(pool),
            Destination::Node(node) => self.subjects().node_command(node, command.command.verb()),
        };
        let payload = serde_json::to_vec(command).map_err(DecodeError::from)?;
        let id = command.id.to_string();
        self.persist(Kept { subject, id, payload: payload.into(), is_command: true }).await
    }

    /// Keeps a message that could not be read, for a person to look at. The same one again, soon, is kept once.
    pub async fn bury(&self, kind: &str, payload: Bytes) -> Result<(), PublishError> {
        let id = format!("dead-{}", events::ChainHash(Sha256::digest(&payload).into()));
        let subject = self.subjects().dead_of(kind);
        self.insist(&Kept { subject, id, payload, is_command: false }, false).await.map(drop)
    }

    /// Publishes, and keeps it until it is recorded.
    async fn persist(&self, kept: Kept) -> Result<(), PublishError> {
        let generation = self.retained.generation();
        let sequence = self.insist(&kept, false).await?;
        self.retained.keep(kept, sequence, generation);
        Ok(())
    }

    /// Publishes what was published before and is lost.
    pub(super) async fn persist_again(&self, kept: &Kept) -> Result<u64, PublishError> {
        self.insist(kept, true).await
    }

    async fn insist(&self, kept: &Kept, again: bool) -> Result<u64, PublishError> {
        let started = Instant::now();
        // By hand: between tries something may have to be mended, and each waits longer for its answer than the one before.
        let mut pause = Duration::from_millis(20);
        let mut patience = if self.config.is_cluster() { AGAIN_AFTER } else { PATIENCE };
        loop {
            // Commands are tried all the same: nobody else finds out whether their stream is well again.
            let refusal = self.refusal();
            if let Some(trouble) = refusal
                && (trouble == TransportTrouble::Unreachable || !kept.is_command)
            {
                return Err(PublishError::Refused(trouble));
            }
            let connection = self.connection();
            let error = match self.start(kept, again).await {
                Ok(pending) => tokio::select! {
                    biased;
                    outcome = pending.sequence() => match outcome {
                        Ok(sequence) => return Ok(sequence),
                        Err(error) => error,
                    },
                    // The answer went to the connection that was there before, or what was sent never left it.
                    () = self.another_connection(connection) => lost(),
                    () = tokio::time::sleep(patience) => lost(),
                },
                Err(error) => error,
            };
            let hopeless = matches!(error, PublishError::Encode(_) | PublishError::Refused(_));
            if hopeless || started.elapsed() >= PATIENCE {
                return Err(error);
            }
            self.mend(&error).await;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
            patience += AGAIN_AFTER;
        }
    }

    /// Does what can be done about a failed publish: a server that lost its store has no streams any more.
    pub async fn mend(&self, error: &PublishError) {
        let patience = if self.config.is_cluster() { MENDING_IN_CLUSTER } else { MENDING };
        if let PublishError::Unavailable(source) = error
            && source.kind() == PublishErrorKind::StreamNotFound
            && let Ok(Err(error)) = tokio::time::timeout(patience, self.ensure_streams()).await
        {
            tracing::debug!(error = %error, "cannot create the streams again");
        }
    }

    async fn start(&self, kept: &Kept, again: bool) -> Result<PendingPublish, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, kept.id.as_str());
        if again {
            headers.insert(AGAIN, "1");
        }
        let (subject, payload) = (kept.subject.clone(), kept.payload.clone());
        let ack = self.jetstream.publish_with_headers(subject, headers, payload).await.map_err(classify)?;
        Ok(self.pending(ack, if kept.is_command { Queue::Commands } else { Queue::Events }))
    }

    pub(super) fn pending(&self, ack: PublishAckFuture, queue: Queue) -> PendingPublish {
        PendingPublish { ack, queue, condition: Arc::clone(&self.condition) }
    }
}
