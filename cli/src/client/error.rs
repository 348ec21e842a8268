//! Why a verb fails, and what the shell gets to know of it.

use std::io;

use reqwest::StatusCode;
use serde::Deserialize;

/// The exit code of a failure of this program or of the server, as with `docker run` and `env`: it is not the command's.
pub const FAILURE: u8 = 125;
/// The exit code of a wrong command line, for verbs that pass no command's exit code on.
pub const USAGE: u8 = 2;
/// The exit code when nobody reads stdout: what a shell shows for a program that SIGPIPE ended.
const PIPE_CLOSED: u8 = 141;

/// What can go wrong for a client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The command line is wrong in a way that only the verb can tell.
    #[error("{0}")]
    Usage(String),
    /// Nobody listens there. Starting a server helps.
    #[error(
        "no server answers at {url}: {source}\nstart one with `stacyvm serve`, or name another with --url or STACYVM_URL"
    )]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answered, and said no.
    #[error("{message} ({code}, request {request_id})")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The kind of error, as the API names it.
        code: String,
        /// The server's own words.
        message: String,
        /// To be found in the server's log.
        request_id: String,
    },
    /// The connection broke. Trying again can help.
    #[error("the connection to the server broke: {0}")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What came is not what this API answers.
    #[error("unexpected answer from the server: {0}")]
    Unexpected(String),
    /// Something about a local file.
    #[error("{what}")]
    Local {
        /// What, and which file.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sandbox could not be made, or is gone.
    #[error("{0}")]
    Failed(String),
    /// Nobody reads the output.
    #[error("nobody reads the output any more")]
    OutputClosed,
    /// A signal ended it.
    #[error("interrupted")]
    Interrupted(u8),
    /// Some of several things failed, and each was told.
    #[error("not everything was done")]
    Told,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    code: String,
    message: String,
}

impl ClientError {
    /// What a refusal says, whoever said it: a proxy may answer in its own words.
    pub fn refused(status: StatusCode, request_id: &str, body: &[u8]) -> Self {
        let body: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        let or = |text: String, other: String| if text.is_empty() { other } else { text };
        Self::Refused {
            status: status.as_u16(),
            code: or(body.code, format!("HTTP {}", status.as_u16())),
            message: or(body.message, format!("the server answered {status}")),
            request_id: request_id.to_owned(),
        }
    }

    /// For the shell.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::OutputClosed => PIPE_CLOSED,
            Self::Interrupted(code) => *code,
            Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::Broken(_)
            | Self::Unexpected(_)
            | Self::Local { .. }
            | Self::Failed(_)
            | Self::Told => FAILURE,
        }
    }

    /// What to do about it, where the server's words cannot say it: they are for every client.
    pub fn remedy(&self, subject: Option<&str>) -> Option<String> {
        let Self::Refused { status, message, .. } = self else {
            return None;
        };
        match (*status, subject) {
            (401, _) => Some("name a key with --api-key or STACYVM_API_KEY".to_owned()),
            (404, Some(id)) if id.starts_with("sb-") && message.starts_with("exec ") => {
                Some(format!("that is a sandbox: `stacyvm execs {id}` lists what ran and runs there"))
            }
            (404, Some(id)) if id.starts_with("ex-") && message.starts_with("sandbox ") => {
                Some(format!("that is a command in a sandbox: `stacyvm attach {id}` shows it"))
            }
            _ => None,
        }
    }

    /// Whether the user knows already.
    pub const fn is_quiet(&self) -> bool {
        matches!(self, Self::OutputClosed | Self::Interrupted(_) | Self::Told)
    }

    /// Whether the same request may go through later.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken(_) => true,
            Self::Refused { status, .. } => matches!(*status, 429 | 500 | 502 | 503 | 504),
            Self::Usage(_)
            | Self::Unexpected(_)
            | Self::Local { .. }
            | Self::Failed(_)
            | Self::OutputClosed
            | Self::Interrupted(_)
            | Self::Told => false,
        }
    }

    /// Whether it is the server's own answer.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether the server said that there is no such thing.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// For `map_err`.
    pub fn local(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Local { what, source }
    }

    /// For `map_err`, after a write to stdout or stderr.
    pub fn output(source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::Local { what: "cannot write the output".to_owned(), source }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        assert_eq!(ClientError::Usage("x".to_owned()).exit_code(), 2);
        assert_eq!(ClientError::Failed("x".to_owned()).exit_code(), 125);
        let pipe = ClientError::output(io::ErrorKind::BrokenPipe.into());
        assert!(pipe.is_quiet());
        assert_eq!(pipe.exit_code(), 141);
    }

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
        let error = ClientError::Refused {
            status: 404,
            code: "NOT_FOUND".to_owned(),
            message: "sandbox not found".to_owned(),
            request_id: "abc".to_owned(),
        };
        assert_eq!(error.to_string(), "sandbox not found (NOT_FOUND, request abc)");
        assert!(error.is_not_found() && !error.is_passing());
    }

    #[test]
    fn a_remedy_is_named_where_only_this_program_knows_it() {
        let refused = |status, message: &str| ClientError::Refused {
            status,
            code: String::new(),
            message: message.to_owned(),
            request_id: String::new(),
        };
        let key = refused(401, "a valid API key is needed").remedy(Some("sb-1"));
        assert_eq!(key.as_deref(), Some("name a key with --api-key or STACYVM_API_KEY"));
        let exec = refused(404, "exec \"sb-1\" does not exist").remedy(Some("sb-1"));
        assert_eq!(
            exec.as_deref(),
            Some("that is a sandbox: `stacyvm execs sb-1` lists what ran and runs there")
        );
        let sandbox = refused(404, "sandbox \"ex-1\" does not exist").remedy(Some("ex-1"));
        assert_eq!(
            sandbox.as_deref(),
            Some("that is a command in a sandbox: `stacyvm attach ex-1` shows it")
        );
        assert_eq!(refused(404, "sandbox \"sb-1\" does not exist").remedy(Some("sb-1")), None);
        assert_eq!(refused(404, "exec \"ex-1\" does not exist").remedy(Some("ex-1")), None);
        assert_eq!(ClientError::Told.remedy(Some("sb-1")), None);
    }
}
