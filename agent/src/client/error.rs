use std::io;
use std::time::Duration;

use crate::protocol::{Features, FrameError, PROTOCOL_VERSION, Versions};

/// Why a call to an agent failed. `E` says why the agent refused this kind of call.
#[derive(Debug, thiserror::Error)]
pub enum CallError<E> {
    /// The connection could not be made or broke. Another try may work; whether the operation had
    /// its effect is unknown.
    #[error("{operation}: connection to the agent failed")]
    Transport {
        operation: &'static str,
        #[source]
        source: io::Error,
    },
    /// The agent did not answer in time, or so slowly that it comes to the same. Another try may work; whether the operation
    /// had its effect is unknown.
    #[error("{operation}: the agent did not answer within {after:?}")]
    Silent { operation: &'static str, after: Duration },
    /// As many calls to this agent are under way as may be. Nothing was asked; another try may work.
    #[error("{operation}: too many calls to the agent are under way")]
    Crowded { operation: &'static str },
    /// As many calls to all agents are under way as this node may have. Nothing was asked; another try may work.
    #[error("{operation}: too many calls to sandboxes are under way on this node")]
    Full { operation: &'static str },
    /// The agent understood and said no. The same call will fail again.
    #[error("refused by the agent: {0}")]
    Refused(E),
    /// The call itself is not sendable, such as arguments that do not fit a frame.
    #[error("{operation}: {reason}")]
    InvalidCall { operation: &'static str, reason: String },
    /// The agent said something that makes no sense. It may be broken or hostile; trying again does
    /// not help.
    #[error("{operation}: the agent broke the protocol: {detail}")]
    Violation { operation: &'static str, detail: String },
    /// The agent and this program have no version in common.
    #[error("the agent speaks protocol versions {} to {}, this program up to {PROTOCOL_VERSION}", theirs.lowest, theirs.highest)]
    Version { theirs: Versions },
    /// The agent has said that it cannot do this. It was not asked.
    #[error("{operation}: the agent of this sandbox does not have {}", missing.names().join(", "))]
    Unsupported { operation: &'static str, missing: Features },
}

impl<E> CallError<E> {
    /// Whether the same call may work on another connection.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Transport { .. } | Self::Silent { .. } | Self::Crowded { .. } | Self::Full { .. }
        )
    }

    pub(super) fn from_frame(operation: &'static str, error: FrameError) -> Self {
        match error {
            FrameError::Io(source) => Self::Transport { operation, source },
            FrameError::TooLarge(_) => Self::InvalidCall { operation, reason: error.to_string() },
            FrameError::Malformed(detail) => Self::Violation { operation, detail: detail.to_owned() },
        }
    }
}
