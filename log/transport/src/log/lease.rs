//! Of several processes that could do the same work, one does.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, StorageType};
use bytes::Bytes;
use events::EventId;
use tokio::time::{Instant, sleep, timeout};

use super::Log;

/// The right to do some work, until it is lost or given back.
///
/// It is a message that its holder writes again and again, each time only if nobody else has written since. Whoever waits
/// takes it when it has not been written for its lifetime, by its own clock: no two clocks have to agree. A holder that was
/// stopped for long can be late to notice that it was replaced, so the work must bear being done twice now and then.
#[derive(Debug)]
pub struct Lease {
    place: Place,
    holder: String,
    sequence: u64,
    renewed_at: Instant,
}

#[derive(Debug, Clone)]
struct Place {
    log: LogHandle,
    subject: String,
    lifetime: Duration,
}

#[derive(Clone)]
struct LogHandle(Log);

impl std::fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

/// What is written there.
struct Written {
    sequence: u64,
    /// Empty when it was given back.
    holder: Bytes,
}

/// Why nothing was written or read.
enum LeaseError {
    /// Somebody else has written.
    Taken,
    /// NATS cannot be reached.
    Unavailable(Box<dyn std::error::Error + Send + Sync>),
}

impl Log {
    /// Waits until the lease of this name can be taken, and takes it.
    pub async fn take_lease(&self, name: &str, lifetime: Duration) -> Lease {
        let place = Place { log: LogHandle(self.clone()), subject: self.subjects().lease(name), lifetime };
        let holder = EventId::new().to_string();
        let mut seen: Option<(u64, Instant)> = None;
        loop {
            let began = Instant::now();
            match place.try_take(&holder, &mut seen).await {
                Ok(Some(sequence)) => return Lease { place, holder, sequence, renewed_at: began },
                Ok(None) | Err(LeaseError::Taken) => {}
                Err(LeaseError::Unavailable(error)) => {
                    tracing::debug!(error = &*error as &dyn std::error::Error, "cannot look at a lease");
                }
            }
            sleep(place.pause()).await;
        }
    }
}

impl Lease {
    /// Keeps it; returns when it is lost.
    pub async fn hold(&mut self) {
        // A quarter is left for whatever the holder was about to do when it lost it.
        let patience = self.place.lifetime * 3 / 4;
        loop {
            sleep(self.place.pause()).await;
            let began = Instant::now();
            let left = patience.saturating_sub(self.renewed_at.elapsed());
            match timeout(left, self.renew()).await {
                Ok(Ok(sequence)) => (self.sequence, self.renewed_at) = (sequence, began),
                Ok(Err(LeaseError::Taken)) => return,
                Ok(Err(LeaseError::Unavailable(error))) => {
                    tracing::debug!(error = &*error as &dyn std::error::Error, "cannot keep a lease");
                }
                Err(_) => return,
            }
            if self.renewed_at.elapsed() >= patience {
                return;
            }
        }
    }

    /// Gives it back, so that the next one need not wait.
    pub async fn release(self) {
        let released = self.place.write(Bytes::new(), self.sequence);
        let _ = timeout(Duration::from_secs(1), released).await;
    }

    async fn renew(&self) -> Result<u64, LeaseError> {
        match self.place.write(self.holder.clone().into(), self.sequence).await {
            Err(LeaseError::Taken) => match self.place.read().await? {
                // Written by ourselves, and only the answer was lost.
                Some(written) if written.holder == self.holder.as_bytes() => Ok(written.sequence),
                Some(_) | None => Err(LeaseError::Taken),
            },
            written => written,
        }
    }
}

impl Place {
    fn pause(&self) -> Duration {
        self.lifetime / 5
    }

    async fn try_take(
        &self,
        holder: &str,
        seen: &mut Option<(u64, Instant)>,
    ) -> Result<Option<u64>, LeaseError> {
        let last = match self.read().await? {
            None => 0,
            Some(written) if written.holder.is_empty() => written.sequence,
            Some(written) => {
                let (sequence, since) = *seen.get_or_insert_with(|| (written.sequence, Instant::now()));
                if sequence != written.sequence {
                    *seen = Some((written.sequence, Instant::now()));
                    return Ok(None);
                }
                if since.elapsed() < self.lifetime {
                    return Ok(None);
                }
                written.sequence
            }
        };
        self.write(holder.to_owned().into(), last).await.map(Some)
    }

    async fn read(&self) -> Result<Option<Written>, LeaseError> {
        let log = &self.log.0;
        let stream = log
            .jetstream
            .get_or_create_stream(Config {
                name: log.subjects().leases_stream(),
                subjects: vec![log.subjects().leases()],
                storage: StorageType::Memory,
                num_replicas: log.config.replicas,
                max_messages_per_subject: 1,
                ..Config::default()
            })
            .await
            .map_err(|error| LeaseError::Unavailable(error.into()))?;
        match stream.get_last_raw_message_by_subject(&self.subject).await {
            Ok(message) => Ok(Some(Written { sequence: message.sequence, holder: message.payload })),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(LeaseError::Unavailable(error.into())),
        }
    }

    /// Writes, if nobody has written after `last`.
    async fn write(&self, holder: Bytes, last: u64) -> Result<u64, LeaseError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.to_string());
        // A server that lost its memory has forgotten the holder too.
        let taken = [PublishErrorKind::WrongLastSequence, PublishErrorKind::StreamNotFound];
        let failed = |error: PublishError| {
            if taken.contains(&error.kind()) {
                LeaseError::Taken
            } else {
                LeaseError::Unavailable(error.into())
            }
        };
        let jetstream = &self.log.0.jetstream;
        let ack =
            jetstream.publish_with_headers(self.subject.clone(), headers, holder).await.map_err(failed)?;
        ack.await.map(|ack| ack.sequence).map_err(failed)
    }
}
