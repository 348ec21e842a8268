//! What may be used once in the whole deployment: the first to say so wins.

use async_nats::HeaderMap;
use async_nats::jetstream::context::PublishErrorKind;

use super::Log;
use super::publish::{PublishError, classify};
use crate::EventId;

impl Log {
    /// Says that the one-time thing with this id is used up. `false`: it was before. Remembered for longer than any such
    /// thing is good.
    pub async fn spend(&self, id: EventId) -> Result<bool, PublishError> {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        let subject = self.subjects().spent_of(id);
        let mut tries = 0;
        loop {
            let sent = self
                .jetstream
                .publish_with_headers(subject.clone(), headers.clone(), Vec::new().into())
                .await;
            let acknowledged = match sent {
                Ok(pending) => pending.await.map(|_| ()),
                Err(error) => Err(error),
            };
            let error = match acknowledged {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == PublishErrorKind::WrongLastSequence => return Ok(false),
                Err(error) => classify(error),
            };
            // Once more after the streams were made again. Not after a lost answer: it may have been the first use.
            if tries > 0 {
                return Err(error);
            }
            tries += 1;
            self.mend(&error).await;
        }
    }
}
