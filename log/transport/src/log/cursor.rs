//! How far somebody who acts on the log is, kept for whoever goes on after him.

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, StorageType};
use events::Position;

use super::Log;

/// A cursor as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredCursor {
    /// Everything up to here is done; `None`: none was ever kept, or the transport was lost with it.
    pub position: Option<Position>,
    /// Which version of it this is: whoever replaces it names it.
    pub version: u64,
}

/// Why a cursor was not read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// Somebody else has kept another one since: he works now.
    #[error("somebody else keeps this cursor")]
    Replaced,
    /// NATS cannot be reached. A later try can succeed.
    #[error("the cursor is out of reach")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl CursorError {
    fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(error.into())
    }
}

impl Log {
    /// The cursor of this name, as it was kept last.
    pub async fn cursor(&self, name: &str) -> Result<StoredCursor, CursorError> {
        let stream = self
            .jetstream
            .get_or_create_stream(Config {
                name: self.subjects().cursors_stream(),
                subjects: vec![self.subjects().cursors()],
                storage: StorageType::File,
                num_replicas: self.config.replicas,
                max_messages_per_subject: 1,
                ..Config::default()
            })
            .await
            .map_err(CursorError::unavailable)?;
        match stream.get_last_raw_message_by_subject(&self.subjects().cursor(name)).await {
            Ok(message) => {
                let position = std::str::from_utf8(&message.payload).ok().and_then(|text| text.parse().ok());
                Ok(StoredCursor { position: position.map(Position), version: message.sequence })
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                Ok(StoredCursor::default())
            }
            Err(error) => Err(CursorError::unavailable(error)),
        }
    }

    /// Keeps a cursor in place of the one that was read or kept last. It is on the server's disk when this returns.
    pub async fn keep_cursor(
        &self,
        name: &str,
        position: Position,
        last: StoredCursor,
    ) -> Result<StoredCursor, CursorError> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, last.version.to_string());
        let subject = self.subjects().cursor(name);
        let kept = async {
            let payload = position.0.to_string().into();
            self.jetstream.publish_with_headers(subject, headers, payload).await?.await
        };
        match kept.await {
            Ok(ack) => Ok(StoredCursor { position: Some(position), version: ack.sequence }),
            Err(error) => self.who_kept(name, position, error).await,
        }
    }

    /// A cursor that was refused may be there all the same: kept by ourselves, and only the answer was lost.
    async fn who_kept(
        &self,
        name: &str,
        position: Position,
        error: PublishError,
    ) -> Result<StoredCursor, CursorError> {
        if error.kind() != PublishErrorKind::WrongLastSequence {
            return Err(CursorError::unavailable(error));
        }
        let found = self.cursor(name).await?;
        // Another one who is exactly as far has done no less.
        if found.position == Some(position) { Ok(found) } else { Err(CursorError::Replaced) }
    }
}
