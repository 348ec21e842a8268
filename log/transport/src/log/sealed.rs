//! What a job may know and the log may not: sealed by whoever submits the job, kept until it ends, destroyed then.

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use events::JobId;

use super::Log;
use super::publish::{PublishError, classify};

/// Why something sealed was not read or destroyed. A later try can succeed.
#[derive(Debug, thiserror::Error)]
#[error("what is sealed is out of reach")]
pub struct SealedError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl SealedError {
    fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

impl Log {
    /// Keeps the sealed values of a job that has none yet. It is on the server's disk when this returns. `false`: there were
    /// some already, which stay: of two who submit the same job at once the first decides, and the other one looks at
    /// [`sealed`](Self::sealed).
    pub async fn put_sealed(&self, job: JobId, sealed: Bytes) -> Result<bool, PublishError> {
        let mut tries = 0;
        loop {
            let Err(error) = self.lay_down(job, sealed.clone()).await else { return Ok(true) };
            if error.kind() == PublishErrorKind::WrongLastSequence {
                return Ok(false);
            }
            let error = classify(error);
            if tries > 0 {
                return Err(error);
            }
            tries += 1;
            self.mend(&error).await;
        }
    }

    /// The sealed values of a job. `None`: it has none, they were destroyed, or the transport lost them.
    pub async fn sealed(&self, job: JobId) -> Result<Option<Bytes>, SealedError> {
        let stream = self
            .jetstream
            .get_stream_no_info(self.subjects().sealed_stream())
            .await
            .map_err(SealedError::new)?;
        match stream.get_last_raw_message_by_subject(&self.subjects().sealed_of(job)).await {
            Ok(message) => Ok(Some(message.payload)),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                // A server that lost its disk has lost these too.
                LastRawMessageErrorKind::JetStream(cause)
                    if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    Ok(None)
                }
                LastRawMessageErrorKind::JetStream(_)
                | LastRawMessageErrorKind::InvalidSubject
                | LastRawMessageErrorKind::Other => Err(SealedError::new(error)),
            },
        }
    }

    /// Destroys the sealed values of a job that has ended. What is not there is destroyed.
    pub async fn destroy_sealed(&self, job: JobId) -> Result<(), SealedError> {
        let stream = self
            .jetstream
            .get_stream_no_info(self.subjects().sealed_stream())
            .await
            .map_err(SealedError::new)?;
        match stream.purge().filter(self.subjects().sealed_of(job)).await {
            Ok(_) => Ok(()),
            Err(error) => match self.jetstream.get_stream(self.subjects().sealed_stream()).await {
                Err(missing) if is_missing(&missing) => Ok(()),
                Ok(_) | Err(_) => Err(SealedError::new(error)),
            },
        }
    }

    async fn lay_down(
        &self,
        job: JobId,
        sealed: Bytes,
    ) -> Result<(), async_nats::jetstream::context::PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        let subject = self.subjects().sealed_of(job);
        self.jetstream.publish_with_headers(subject, headers, sealed).await?.await.map(drop)
    }
}

fn is_missing(error: &async_nats::jetstream::context::GetStreamError) -> bool {
    use async_nats::jetstream::context::GetStreamErrorKind;
    matches!(error.kind(), GetStreamErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::STREAM_NOT_FOUND)
}
