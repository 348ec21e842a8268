//! What may be used once in the whole deployment: it is offered, and the first to use it wins.
//!
//! What was used is not remembered; what was not used is. So no clock that is set back, and no memory that is lost, lets
//! anybody in again: it only makes what was offered worth nothing.

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use events::EventId;

use super::Log;
use super::publish::{PublishError, classify};

/// What stands in the place of what was used.
const USED: &[u8] = b"used";

impl Log {
    /// Lets the one-time thing with this fresh id be used once. It is remembered for longer than any such thing is good.
    pub async fn offer(&self, id: EventId) -> Result<(), PublishError> {
        let mut tries = 0;
        loop {
            let Err(error) = self.stand(id, 0, &[]).await else { return Ok(()) };
            if error.kind() == PublishErrorKind::WrongLastSequence {
                // Ours, of which the answer was lost.
                return Ok(());
            }
            let error = classify(error);
            if tries > 0 {
                return Err(error);
            }
            tries += 1;
            self.mend(&error).await;
        }
    }

    /// Says that the one-time thing with this id is used up. `false`: it was before, or it was never offered, or so long ago
    /// that nobody remembers.
    pub async fn spend(&self, id: EventId) -> Result<bool, PublishError> {
        let stream =
            self.jetstream.get_stream_no_info(self.subjects().spent_stream()).await.map_err(unanswered)?;
        let offered = match stream.get_last_raw_message_by_subject(&self.subjects().spent_of(id)).await {
            Ok(message) if message.payload.is_empty() => message.sequence,
            Ok(_) => return Ok(false),
            Err(error) => {
                return match error.kind() {
                    LastRawMessageErrorKind::NoMessageFound => Ok(false),
                    // A server that lost its memory. The next offer is to find one.
                    LastRawMessageErrorKind::JetStream(cause)
                        if cause.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                    {
                        self.mend(&PublishError::Unavailable(PublishErrorKind::StreamNotFound.into())).await;
                        Ok(false)
                    }
                    LastRawMessageErrorKind::JetStream(_)
                    | LastRawMessageErrorKind::InvalidSubject
                    | LastRawMessageErrorKind::Other => Err(unanswered(error)),
                };
            }
        };
        // Not again after a lost answer: it may have been the first use.
        match self.stand(id, offered, USED).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => Ok(false),
            Err(error) => Err(classify(error)),
        }
    }

    /// Puts this in the place of an id, if what is there is what was seen there (0: nothing).
    async fn stand(
        &self,
        id: EventId,
        seen: u64,
        payload: &'static [u8],
    ) -> Result<(), async_nats::jetstream::context::PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, seen.to_string());
        let pending = self
            .jetstream
            .publish_with_headers(self.subjects().spent_of(id), headers, payload.into())
            .await?;
        pending.await.map(drop)
    }
}

fn unanswered(error: impl std::error::Error) -> PublishError {
    tracing::debug!(error = %error, "cannot look up what may be used once");
    PublishError::Unavailable(PublishErrorKind::Other.into())
}
