//! Why a request fails, and whether asking again can help.

use std::path::PathBuf;

use api_types::{ErrorBody, ErrorCode, Open};
use reqwest::StatusCode;

/// A cause from a library below, for people.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What can go wrong between a client and a server.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or the name is not known. A server that is being restarted looks like this.
    #[error("no server answers at {url}: {source}")]
    Unreachable {
        /// Where, without a password.
        url: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// The server answered, and said no.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The connection broke, or nothing came for too long. What was asked for may have been done.
    #[error("the connection to the server broke: {0}")]
    Broken(#[source] Cause),
    /// The server ended a connection for good, in its own words: a viewer's link has expired, for example.
    #[error("{0}")]
    Closed(String),
    /// The sandbox that was asked for could not be made.
    #[error("{id} could not be made: {message}")]
    NotMade {
        /// Its id.
        id: String,
        /// What went wrong.
        message: String,
    },
    /// What came is not what this API answers.
    #[error("unexpected answer from the server: {0}")]
    Unexpected(String),
}

/// A server's no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code}, request {request_id})")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The kind of error. Of who is not of this API, such as a proxy, the HTTP status.
    pub code: Open<ErrorCode>,
    /// The server's own words.
    pub message: String,
    /// What the server's log calls the request.
    pub request_id: String,
}

/// Why no client can be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address is not one of a server.
    #[error("the address {url:?}: {why}")]
    Url {
        /// As it was given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The API key has characters that no header can hold.
    #[error("the API key has characters that no header can hold")]
    ApiKey,
    /// The user's name has characters that no header can hold.
    #[error("the user {0:?}: no header can hold it")]
    UserId(String),
    /// A file of certificate authorities that cannot be used.
    #[error("the certificate authorities in {}: {why}", path.display())]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// TLS or HTTP cannot be set up on this machine.
    #[error("cannot set a client up: {0}")]
    Setup(#[source] Cause),
}

impl ClientError {
    /// What a refusal says, whoever said it: a proxy may answer in its own words.
    pub(crate) fn refused(status: StatusCode, request_id: &str, body: &[u8]) -> Self {
        let body = serde_json::from_slice(body).unwrap_or_else(|_| ErrorBody {
            code: Open::Other(format!("HTTP {}", status.as_u16()).into()),
            message: format!("the server answered {status}").into(),
        });
        Self::Refused(Box::new(Refusal {
            status: status.as_u16(),
            code: body.code,
            message: body.message.into_owned(),
            request_id: request_id.to_owned(),
        }))
    }

    pub(crate) fn unexpected(what: &str, error: impl std::fmt::Display) -> Self {
        Self::Unexpected(format!("not {what}: {error}"))
    }

    /// Whether the same request may go through later: the server is away, overloaded or unwell.
    ///
    /// A request that changes something and ended in [`ClientError::Broken`] may have been carried out. Repeat it with the
    /// same [`IdempotencyKey`](crate::IdempotencyKey).
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken(_) => true,
            Self::Refused(refusal) => matches!(refusal.status, 429 | 500 | 502 | 503 | 504),
            Self::Closed(_) | Self::NotMade { .. } | Self::Unexpected(_) => false,
        }
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            Self::Unreachable { .. }
            | Self::Broken(_)
            | Self::Closed(_)
            | Self::NotMade { .. }
            | Self::Unexpected(_) => None,
        }
    }

    /// Whether the server said that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether the server said that the thing is not in a state for this: an exec that has ended takes no signal.
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_is_not_ours_is_told_by_its_status() {
        for body in [&b""[..], b"<html>", b"[]", b"{\"code\":5}"] {
            let error = ClientError::refused(StatusCode::BAD_GATEWAY, "r", body);
            assert_eq!(error.to_string(), "the server answered 502 Bad Gateway (HTTP 502, request r)");
            assert!(error.is_passing());
        }
    }

    #[test]
    fn a_refusal_names_the_request() {
        let body = br#"{"code":"NOT_FOUND","message":"sandbox not found"}"#;
        let error = ClientError::refused(StatusCode::NOT_FOUND, "abc", body);
        assert_eq!(error.to_string(), "sandbox not found (NOT_FOUND, request abc)");
        assert!(error.is_not_found() && !error.is_passing() && !error.is_conflict());
    }
}
