//! The proof that what is published gets recorded: a message goes the way of all events, and the recorder answers after it has
//! committed.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::StreamExt;
use tokio::time::timeout;

use super::source::PROBE;
use super::{Log, TransportTrouble};

/// Why a probe was not recorded, as the recorder says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeFailure {
    /// The database is away, busy or full.
    Unavailable,
    /// The database will not do it.
    Refused,
    /// Another recorder was faster: it answers.
    Conflict,
}

impl ProbeFailure {
    const ALL: [Self; 3] = [Self::Unavailable, Self::Refused, Self::Conflict];

    /// The one of this name.
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|failure| failure.code() == code)
    }

    /// A stable name.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Unavailable => "database_unavailable",
            Self::Refused => "database_refuses",
            Self::Conflict => "recorder_conflict",
        }
    }
}

/// What a probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// It was not taken by the transport.
    #[error("{0}")]
    Transport(TransportTrouble),
    /// The stream of events is as full as it may get: the recorder is behind.
    #[error("the stream of events is full")]
    Full,
    /// It is in the transport, and no recorder said anything.
    #[error("no recorder answers")]
    Unanswered,
    /// A recorder could not write it down.
    #[error("the recorder cannot write to the database")]
    Unrecorded(ProbeFailure),
}

impl Log {
    /// Publishes a message that holds no event, and waits until the recorder has committed it.
    pub async fn probe(&self, patience: Duration) -> Result<(), ProbeError> {
        if let Some(trouble) =
            self.trouble().filter(|_| !self.is_connected() || self.condition.refusal().is_some())
        {
            return Err(ProbeError::Transport(trouble));
        }
        let unreachable = ProbeError::Transport(TransportTrouble::Unreachable);
        let inbox = self.client().new_inbox();
        let Ok(mut answers) = self.client().subscribe(inbox.clone()).await else {
            return Err(unreachable);
        };
        let mut headers = HeaderMap::new();
        headers.insert(PROBE, inbox.as_str());
        let sent = async {
            let sent = self.jetstream.publish_with_headers(self.subjects().probe(), headers, Bytes::new());
            let ack = sent.await.map_err(super::publish::classify)?;
            self.pending(ack, super::condition::Queue::Events).wait().await
        };
        match timeout(patience, sent).await {
            Ok(Ok(())) => {}
            Ok(Err(super::PublishError::Full)) => return Err(ProbeError::Full),
            Ok(Err(error)) => {
                self.mend(&error).await;
                return Err(ProbeError::Transport(self.trouble().unwrap_or(TransportTrouble::Leaderless)));
            }
            Err(_) => {
                return Err(ProbeError::Transport(self.trouble().unwrap_or(TransportTrouble::Leaderless)));
            }
        }
        let answer = async {
            while let Some(message) = answers.next().await {
                match read(&message.payload) {
                    // Whoever won has it, or will have it when it is read again.
                    Err(ProbeFailure::Conflict) => {}
                    answer => return answer.map_err(ProbeError::Unrecorded),
                }
            }
            Err(unreachable)
        };
        timeout(patience, answer).await.unwrap_or(Err(ProbeError::Unanswered))
    }

    /// Answers probes: they are committed, or could not be.
    pub async fn answer_probes(&self, probes: &[String], outcome: Result<(), ProbeFailure>) {
        let answer = outcome.map_or_else(ProbeFailure::code, |()| "recorded");
        for probe in probes {
            if let Err(error) =
                self.client().publish(probe.clone(), Bytes::from_static(answer.as_bytes())).await
            {
                tracing::debug!(error = %error, "a probe was not answered");
            }
        }
    }
}

/// Whether these bytes are an answer to a probe.
pub(crate) fn reads(answer: &[u8]) -> bool {
    !matches!(read(answer), Err(ProbeFailure::Unavailable))
}

/// What a recorder said. One that says something newer than this build knows has not recorded it.
fn read(answer: &[u8]) -> Result<(), ProbeFailure> {
    if answer == b"recorded" {
        return Ok(());
    }
    let known = std::str::from_utf8(answer).ok().and_then(ProbeFailure::of_code);
    Err(known.unwrap_or(ProbeFailure::Unavailable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_became_of_it() {
        assert_eq!(read(b"recorded"), Ok(()));
        for failure in ProbeFailure::ALL {
            assert_eq!(read(failure.code().as_bytes()), Err(failure));
        }
        assert_eq!(read(b"from the future"), Err(ProbeFailure::Unavailable));
    }
}
