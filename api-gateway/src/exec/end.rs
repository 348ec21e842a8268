//! What the ending of an exec or the failure of a sandbox means to a client.

use std::time::Duration;

use events::{ExecId, FailureCode};

use crate::error::ApiError;
use crate::gateway::sandbox_gone;

#[derive(Debug, thiserror::Error)]
#[error("{code:?}: {message}")]
struct Reported {
    code: FailureCode,
    message: String,
}

/// When a place may have become free.
const COME_AGAIN: Duration = Duration::from_secs(10);

/// A failure that the log tells of, as a client gets it.
pub fn failure(code: FailureCode, message: &str) -> ApiError {
    let reported = || Reported { code, message: message.to_owned() };
    match code {
        FailureCode::ImageNotFound
        | FailureCode::ImagePullFailed
        | FailureCode::Unsupported
        | FailureCode::Invalid => ApiError::bad_request(message.to_owned()),
        FailureCode::QueueTimeout | FailureCode::ResourceLimit => {
            ApiError::resource_limit(message.to_owned(), COME_AGAIN)
        }
        FailureCode::DeadlinePassed => ApiError::conflict("its time to live was over before it was ready"),
        FailureCode::SandboxGone => sandbox_gone(),
        FailureCode::ProviderUnavailable | FailureCode::AgentUnreachable | FailureCode::CommandLost => {
            ApiError::unavailable(reported())
        }
        FailureCode::Internal => ApiError::internal(reported()),
    }
}

/// The sandbox went away while the exec ran.
pub fn outcome_unknown(message: &str) -> ApiError {
    ApiError::conflict(format!("nobody can say how the command ended: {message}"))
}

/// The exec's time was up.
pub fn timed_out(exec: ExecId) -> ApiError {
    ApiError::timeout(format!(
        "the command's time was up and it was ended; what it wrote is at /api/v1/execs/{exec}/output"
    ))
    .with_exec(exec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn each_failure_has_its_code() {
        for (code, expected) in [
            (FailureCode::ImageNotFound, ErrorCode::BadRequest),
            (FailureCode::ImagePullFailed, ErrorCode::BadRequest),
            (FailureCode::Unsupported, ErrorCode::BadRequest),
            (FailureCode::Invalid, ErrorCode::BadRequest),
            (FailureCode::DeadlinePassed, ErrorCode::Conflict),
            (FailureCode::SandboxGone, ErrorCode::NotFound),
            (FailureCode::ProviderUnavailable, ErrorCode::Unavailable),
            (FailureCode::AgentUnreachable, ErrorCode::Unavailable),
            (FailureCode::CommandLost, ErrorCode::Unavailable),
            (FailureCode::QueueTimeout, ErrorCode::ResourceLimit),
            (FailureCode::ResourceLimit, ErrorCode::ResourceLimit),
            (FailureCode::Internal, ErrorCode::InternalError),
        ] {
            assert_eq!(failure(code, "m").code(), expected, "{code:?}");
        }
    }

    #[test]
    fn what_only_the_log_may_know_stays_there() {
        for code in [FailureCode::ProviderUnavailable, FailureCode::AgentUnreachable, FailureCode::Internal] {
            assert!(!failure(code, "/var/lib/secret").to_string().contains("secret"));
        }
    }
}
