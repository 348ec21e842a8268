use serde::{Deserialize, Serialize};

use super::{ExecId, Stream};

/// Why the agent did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    Start(StartRefusal),
    Attach(AttachRefusal),
    Exec(ExecRefusal),
    File(FileRefusal),
    Tunnel(TunnelRefusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartErrorKind {
    /// Empty argv, or a NUL byte in an argument or a variable.
    InvalidArgument,
    /// The working directory is missing, no directory, or not accessible to the user.
    WorkingDirectory,
    UnknownUser,
    /// The agent may not run processes as that user.
    UserNotPermitted,
    /// No terminal could be opened.
    Terminal,
    /// Out of processes, descriptors or memory: later may work.
    Resources,
    Other,
}

/// Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum StartRefusal {
    #[error("{message}")]
    NotStarted { kind: StartErrorKind, message: String },
    /// The exec was there already, and its streams cannot go on where asked.
    #[error(transparent)]
    Attach(#[from] AttachRefusal),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum AttachRefusal {
    #[error("exec {0} is not known here")]
    UnknownExec(ExecId),
    #[error("{stream} below byte {retained_from} has been released")]
    Released { stream: Stream, retained_from: u64 },
    #[error("{stream} has only {produced} bytes so far")]
    BeyondEnd { stream: Stream, produced: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum ExecRefusal {
    #[error("exec {0} is not known here")]
    UnknownExec(ExecId),
    #[error("the exec has ended")]
    Ended,
    #[error("stdin is closed")]
    StdinClosed,
    #[error("stdin goes on at byte {taken}")]
    StdinGap { taken: u64 },
    #[error("the exec has no terminal")]
    NoTerminal,
    #[error("{0} is not a signal")]
    InvalidSignal(i32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileErrorKind {
    NotFound,
    PermissionDenied,
    AlreadyExists,
    IsADirectory,
    NotADirectory,
    DirectoryNotEmpty,
    /// Empty, longer than [`MAX_PATH`](super::MAX_PATH), with a NUL byte, a symlink loop, or a bad pattern.
    InvalidPath,
    /// Disk or quota full.
    NoSpace,
    /// The agent's own failure.
    Other,
    /// In use: a program that runs, a mount point.
    Busy,
    /// This kind of file cannot do that: a socket, a terminal, a device.
    Unsupported,
    /// More entries than one answer holds ([`MAX_LISTED`](super::MAX_LISTED)).
    TooMany,
    /// Whatever else the sandbox's kernel said no to.
    Failed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FileRefusal {
    pub kind: FileErrorKind,
    pub path: String,
    pub message: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TunnelRefusal {
    #[error("nothing listens on port {port}")]
    ConnectionRefused { port: u16 },
    #[error("connect to port {port}: {message}")]
    Other { port: u16, message: String },
}

/// The agent refused with a reason that does not belong to the operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("refusal of another operation: {0:?}")]
pub struct UnexpectedRefusal(pub Refusal);

macro_rules! one_refusal {
    ($($variant:ident($refusal:ty)),*) => {$(
        impl From<$refusal> for Refusal {
            fn from(refusal: $refusal) -> Self {
                Self::$variant(refusal)
            }
        }

        impl TryFrom<Refusal> for $refusal {
            type Error = UnexpectedRefusal;
            fn try_from(refusal: Refusal) -> Result<Self, UnexpectedRefusal> {
                if let Refusal::$variant(refusal) = refusal { Ok(refusal) } else { Err(UnexpectedRefusal(refusal)) }
            }
        }
    )*};
}
one_refusal!(
    Start(StartRefusal),
    Attach(AttachRefusal),
    Exec(ExecRefusal),
    File(FileRefusal),
    Tunnel(TunnelRefusal)
);

/// For calls that no agent refuses.
impl TryFrom<Refusal> for std::convert::Infallible {
    type Error = UnexpectedRefusal;
    fn try_from(refusal: Refusal) -> Result<Self, UnexpectedRefusal> {
        Err(UnexpectedRefusal(refusal))
    }
}
