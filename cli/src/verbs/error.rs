//! Why a verb fails, and what the shell gets to know of it.

use std::io;

use client::{BuildError, ClientError};

/// The exit code of a failure of this program or of the server, as with `docker run` and `env`: it is not the command's.
pub const FAILURE: u8 = 125;
/// The exit code of a wrong command line, for verbs that pass no command's exit code on.
pub const USAGE: u8 = 2;
/// The exit code when nobody reads stdout: what a shell shows for a program that SIGPIPE ended.
const PIPE_CLOSED: u8 = 141;

/// What can go wrong for a verb.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The command line is wrong in a way that only the verb can tell.
    #[error("{0}")]
    Usage(String),
    /// The server said no, or nothing that helps, or nothing at all.
    #[error(transparent)]
    Server(#[from] ClientError),
    /// What came is not what this program can show.
    #[error("unexpected answer from the server: {0}")]
    Unexpected(String),
    /// Something about a local file.
    #[error("{what}")]
    Local {
        /// What, and which file.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// What was asked for cannot be done, or not all of it.
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

impl From<BuildError> for VerbError {
    /// Names the option that is wrong.
    fn from(error: BuildError) -> Self {
        Self::Usage(match error {
            BuildError::Url { url, why } => format!("--url {url:?}: {why}"),
            BuildError::UserId(user) => format!("--user-id {user:?}: no header can hold it"),
            BuildError::Authorities { path, why } => format!("--ca-file {}: {why}", path.display()),
            error @ (BuildError::ApiKey | BuildError::Setup(_)) => error.to_string(),
        })
    }
}

impl VerbError {
    /// For the shell.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => USAGE,
            Self::OutputClosed => PIPE_CLOSED,
            Self::Interrupted(code) => *code,
            Self::Server(_) | Self::Unexpected(_) | Self::Local { .. } | Self::Failed(_) | Self::Told => {
                FAILURE
            }
        }
    }

    /// What to do about it, where the server's words cannot say it: they are for every client.
    pub fn remedy(&self, subject: Option<&str>) -> Option<String> {
        let refusal = match self {
            Self::Server(ClientError::Refused(refusal)) => refusal,
            Self::Server(ClientError::Unreachable { .. }) => {
                let remedy = "start one with `stacyvm serve`, or name another with --url or STACYVM_URL";
                return Some(remedy.to_owned());
            }
            Self::Server(
                ClientError::Broken(_)
                | ClientError::Closed(_)
                | ClientError::NotMade { .. }
                | ClientError::Unexpected(_),
            )
            | Self::Usage(_)
            | Self::Unexpected(_)
            | Self::Local { .. }
            | Self::Failed(_)
            | Self::OutputClosed
            | Self::Interrupted(_)
            | Self::Told => return None,
        };
        let message = &refusal.message;
        match (refusal.status, subject) {
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
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Server(error) => error.is_passing(),
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
        matches!(self, Self::Server(ClientError::Refused(_)))
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
    use client::{ErrorCode, Refusal};

    use super::*;

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        assert_eq!(VerbError::Usage("x".to_owned()).exit_code(), 2);
        assert_eq!(VerbError::Failed("x".to_owned()).exit_code(), 125);
        let pipe = VerbError::output(io::ErrorKind::BrokenPipe.into());
        assert!(pipe.is_quiet());
        assert_eq!(pipe.exit_code(), 141);
    }

    #[test]
    fn a_remedy_is_named_where_only_this_program_knows_it() {
        let refused = |status, message: &str| {
            VerbError::from(ClientError::Refused(Box::new(Refusal {
                status,
                code: ErrorCode::NotFound.into(),
                message: message.to_owned(),
                request_id: String::new(),
            })))
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
        assert_eq!(VerbError::Told.remedy(Some("sb-1")), None);
    }
}
