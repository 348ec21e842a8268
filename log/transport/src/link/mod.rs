//! The link: a gateway talks to the executor that has a sandbox, for what is not a command: files, input, statistics.
//!
//! Calls and byte streams over core NATS, so that a gateway needs no route to an executor but the one to NATS. Core NATS
//! has no flow control of its own, so every direction has a window: a sender may be [`WINDOW`] bytes ahead of what the
//! receiver has consumed. Pieces carry their offset; a lost one breaks the stream with an error instead of a hole.

mod artifacts;
mod client;
mod frame;
mod server;
mod stream;

use std::ops::Range;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

pub use artifacts::CollectedLine;
pub use client::{LinkClient, LinkStream, Taken};
pub(crate) use frame::LinkFrame;
pub use server::{LinkIncoming, LinkServer};

use events::{
    Actor, CommandId, ExecId, ExecSpec, JobArtifact, JobId, RequestId, SandboxId, SecretMap, TenantId,
    TerminalSize,
};

use crate::ModeChange;

/// How many bytes may be under way in one direction.
pub const WINDOW: u64 = 4 << 20;
/// The largest piece.
pub const PIECE: usize = 256 << 10;

/// What a gateway asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkRequest {
    /// Whose sandbox it is.
    pub tenant: TenantId,
    /// Who asks.
    pub actor: Actor,
    /// The request that it came with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
    /// The trace that the request belongs to (W3C).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Which sandbox.
    pub sandbox: SandboxId,
    /// The operation.
    pub op: LinkOp,
    /// Whether who asks wants to hear that the executor is at work, where that takes longer.
    #[serde(default)]
    pub tell_working: bool,
}

/// The operations. `ReadFile`, `ReadFilePart`, `WriteFile`, `ListFiles`, `Glob` and `Input` are streams, the others plain
/// calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum LinkOp {
    /// Streams a file out. The head is `File`.
    ReadFile {
        /// The path.
        path: String,
    },
    /// Streams a file in, and replaces the old one at once when it is complete. The head is `Done`.
    WriteFile {
        /// The path.
        path: String,
        /// Permission bits.
        mode: u32,
        /// Whether a file that is there keeps its own.
        #[serde(default)]
        keep_mode: bool,
    },
    /// The entries of a directory, by name. The head is `Done`; the bytes are a [`FileEntry`] a line, in JSON.
    ListFiles {
        /// The path.
        path: String,
    },
    /// One entry.
    StatFile {
        /// The path.
        path: String,
    },
    /// Deletes a file or directory.
    DeleteFile {
        /// The path.
        path: String,
        /// Whether a directory goes with all that is in it.
        recursive: bool,
    },
    /// Moves or renames.
    MoveFile {
        /// From.
        from: String,
        /// To.
        to: String,
    },
    /// Changes permission bits.
    ChangeMode {
        /// The path.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// The paths that match a pattern, sorted. The head is `Done`; the bytes are a string a line, in JSON.
    Glob {
        /// The pattern.
        pattern: String,
    },
    /// What the sandbox uses.
    Stats,
    /// Streams input to an exec, appended to its stdin. The head is `Done`. A stream that is cancelled leaves stdin open.
    Input {
        /// Which exec.
        exec: ExecId,
        /// Whether the end of the stream closes its stdin.
        close: bool,
    },
    /// Sends a signal to an exec's process group.
    Signal {
        /// Which exec.
        exec: ExecId,
        /// The signal's number.
        signal: i32,
    },
    /// Changes the size of an exec's terminal.
    Resize {
        /// Which exec.
        exec: ExecId,
        /// The new size.
        size: TerminalSize,
    },
    /// Ends an exec with all its descendants.
    Kill {
        /// Which exec.
        exec: ExecId,
    },
    /// Changes permission bits as `chmod u+x` does.
    AdjustMode {
        /// The path.
        path: String,
        /// What becomes of the mode.
        change: ModeChange,
    },
    /// Streams a part of a file out. The head is `File`; what of its size the part is ([`ByteRange::of`]) follows, exactly, or
    /// nothing where the file has no such bytes. `Unsupported` for a file that does not tell its size.
    ReadFilePart {
        /// The path.
        path: String,
        /// Which bytes.
        range: ByteRange,
    },
    /// Closes the output of an exec that has ended with it open.
    CloseOutput {
        /// Which exec.
        exec: ExecId,
    },
    /// Starts an exec that somebody waits for. Whoever does not wait sends a command, which outlives both ends.
    StartExec {
        /// What its events name as their cause.
        command: CommandId,
        /// The exec.
        exec: ExecId,
        /// What runs.
        spec: ExecSpec,
        /// Its environment.
        env: SecretMap,
        /// When it was asked for, by the clock of who asks. One that was under way for long is not started without asking.
        sent_at: DateTime<Utc>,
    },
    /// Stores the files of a sandbox that match, as artifacts of a job. The head is `Done`, at once; the bytes are a [`CollectedLine`] a
    /// line, in JSON. May be asked for again: what is stored already is stored once. `InvalidPath` for what is no pattern, `TooMany` where
    /// more match than a job may have, `Unavailable` while the store takes nothing, `Internal` where it never will.
    CollectArtifacts {
        /// Whose artifacts they become.
        job: JobId,
        /// The directory in the sandbox; a relative one begins at its workspace.
        directory: String,
        /// Patterns of paths below it.
        patterns: Vec<String>,
        /// How long it may take, in milliseconds; half an hour at most.
        within_ms: u64,
    },
    /// Puts artifacts of a job of the same tenant into a sandbox, below a directory that is made where it is missing. The head is `Done`, at
    /// once. `NotFound` where one is not in the store any more. May be asked for again. A request holds a few hundred: the rest goes into
    /// the next one.
    PlaceArtifacts {
        /// Whose they are.
        job: JobId,
        /// Which, as they were stored.
        artifacts: Vec<JobArtifact>,
        /// The directory in the sandbox.
        directory: String,
    },
}

/// One range of the bytes of something whose length its asker does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ByteRange {
    /// From the first to the last byte; to the end where there is no last.
    From(u64, Option<u64>),
    /// So many bytes before the end.
    Last(u64),
}

impl ByteRange {
    /// Which bytes of `total` these are; `None`: there are none.
    pub fn of(self, total: u64) -> Option<Range<u64>> {
        let range = match self {
            Self::From(first, last) => first..last.map_or(total, |last| last.saturating_add(1).min(total)),
            Self::Last(count) => total.saturating_sub(count)..total,
        };
        (range.start < range.end).then_some(range)
    }
}

impl LinkOp {
    /// Whether it changes nothing, so that it may be asked for twice.
    pub(crate) const fn only_reads(&self) -> bool {
        match self {
            Self::ReadFile { .. }
            | Self::ReadFilePart { .. }
            | Self::ListFiles { .. }
            | Self::StatFile { .. }
            | Self::Glob { .. }
            | Self::Stats => true,
            Self::WriteFile { .. }
            | Self::DeleteFile { .. }
            | Self::MoveFile { .. }
            | Self::ChangeMode { .. }
            | Self::AdjustMode { .. }
            | Self::Input { .. }
            | Self::Signal { .. }
            | Self::Resize { .. }
            | Self::Kill { .. }
            | Self::CloseOutput { .. }
            | Self::CollectArtifacts { .. }
            | Self::PlaceArtifacts { .. }
            | Self::StartExec { .. } => false,
        }
    }
}

/// What an executor answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
pub enum LinkValue {
    /// It is done.
    Done,
    /// One entry.
    File(FileEntry),
    /// What the sandbox uses.
    Stats(SandboxStats),
    /// Not begun yet: does anybody still wait? Any word says yes.
    StillWanted,
}

/// One entry of a file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The last part of the path.
    pub name: String,
    /// The whole path inside the sandbox.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Whether it is a directory, or a symlink to one.
    pub is_dir: bool,
    /// Whether it is a symlink; the other fields are those of what it leads to, where it leads to something.
    #[serde(default)]
    pub is_symlink: bool,
    /// When its content last changed.
    pub modified_at: DateTime<Utc>,
}

/// What a sandbox uses.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SandboxStats {
    /// CPU time of the last moment, in percent of one CPU.
    pub cpu_percent: f64,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// The memory limit, in bytes.
    pub memory_limit_bytes: u64,
}

/// Why an executor refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// No such file or directory.
    NotFound,
    /// A path that cannot be one, or a pattern that is none.
    InvalidPath,
    /// The sandbox's own permissions forbid it.
    PermissionDenied,
    /// A directory where a file is needed.
    IsADirectory,
    /// A file where a directory is needed.
    NotADirectory,
    /// It is there already.
    AlreadyExists,
    /// The directory is not empty.
    DirectoryNotEmpty,
    /// The sandbox's disk is full.
    NoSpace,
    /// In use: a program that runs, a mount point.
    Busy,
    /// More than one answer holds.
    TooMany,
    /// Whatever else the sandbox's kernel said no to.
    Failed,
    /// This executor does not have the sandbox.
    SandboxGone,
    /// The exec has ended, or never was.
    ExecGone,
    /// The provider cannot do it.
    Unsupported,
    /// It was done, and could not be recorded.
    Unrecorded,
    /// Anything else; the executor's log has the detail.
    Internal,
    /// Not now: the sandbox or what is under it does not answer, or it could not be recorded and so was not done.
    Unavailable,
    /// Not now: as many calls to this sandbox, or to all of the node, are under way as may be. Nothing was done.
    Crowded,
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct LinkFault {
    /// The kind.
    pub code: FaultCode,
    /// One sentence that may be shown to the client.
    pub message: String,
}

impl LinkFault {
    /// A refusal with this sentence.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The executor refuses. Trying again does not help.
    #[error(transparent)]
    Refused(#[from] LinkFault),
    /// The executor's node does not answer. Nothing happened; a later try can succeed.
    #[error("the executor does not answer")]
    Unreachable,
    /// It was asked for, and nobody said in time that it was heard. Whether it happens is unknown.
    #[error("the executor did not answer in time")]
    Unanswered,
    /// The stream broke on the way. How much happened is unknown.
    #[error("the link broke: {0}")]
    Broken(&'static str),
}

#[cfg(test)]
mod tests {
    use events::without_values;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Wherever a secret stands in a request, the error does not tell it.
        #[test]
        fn what_executors_are_told_is_not_repeated(secret in "s3cret[ -~]{0,30}") {
            let value = serde_json::Value::String(secret.clone());
            let messages = [
                serde_json::json!({ "tenant": value }),
                serde_json::json!({ "tenant": "red", "actor": "reaper", "op": { "op": value } }),
                serde_json::json!({ secret.as_str(): { "secrets": [value] } }),
                serde_json::json!(value),
                serde_json::json!([[value]]),
            ];
            for message in messages {
                let bytes = serde_json::to_vec(&message).unwrap();
                let told = without_values(&serde_json::from_slice::<LinkRequest>(&bytes).unwrap_err());
                prop_assert!(!told.contains("s3cret"), "{}", told);
            }
        }
    }
}
