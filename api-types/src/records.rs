//! Records of an exec's output: lines of NDJSON, and frames of WebSockets.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::ErrorBody;
use crate::word::{Open, words};

words! {
    /// Which of a command's streams.
    OutputStream {
        /// Standard output, or all that a command on a terminal shows.
        Stdout => "stdout",
        /// Standard error.
        Stderr => "stderr",
    }
}

words! {
    /// Why recorded bytes are not there any more.
    WhyGone {
        /// The key was destroyed under which they were kept.
        Erased => "erased",
        /// They were older than what is kept.
        Expired => "expired",
    }
}

words! {
    /// How an exec, or a stream of it, ended.
    ExecOutcome {
        /// It left by itself, or by a signal that nobody sent to end it.
        Exited => "exited",
        /// Its time was up.
        TimedOut => "timed_out",
        /// Its end was asked for.
        Killed => "killed",
        /// It could not be run.
        Failed => "failed",
        /// Nobody can say how it ended.
        OutcomeUnknown => "outcome_unknown",
        /// The stream ends here, the exec does not.
        Interrupted => "interrupted",
    }
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OutputRecord<'a> {
    /// The same as `stream`, in the documented WebSocket framing only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<OutputStream>,
    /// Which stream.
    pub stream: OutputStream,
    /// The text, with U+FFFD in place of bytes that are not UTF-8.
    #[serde(borrow)]
    pub data: Cow<'a, str>,
    /// The exact bytes in base 64, only where they are not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_b64: Option<String>,
    /// Where the first byte stands in its stream.
    pub offset: u64,
    /// Where to go on from: the offset after the last byte.
    pub next_offset: u64,
}

/// Bytes that were recorded and are not kept any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GoneRecord {
    /// `gone`
    pub r#type: Cow<'static, str>,
    /// Which stream.
    pub stream: OutputStream,
    /// Empty.
    pub data: Cow<'static, str>,
    /// Where the first of them stood in its stream.
    pub offset: u64,
    /// Where to go on from: the offset after the last of them.
    pub next_offset: u64,
    /// Why.
    #[cfg_attr(feature = "openapi", schema(value_type = WhyGone))]
    pub why: Open<WhyGone>,
}

impl GoneRecord {
    /// Says that the bytes from one offset up to another are not there any more.
    pub fn new(stream: OutputStream, offset: u64, next_offset: u64, why: WhyGone) -> Self {
        Self { r#type: "gone".into(), stream, data: "".into(), offset, next_offset, why: why.into() }
    }
}

/// How an exec ended: the last record of a stream. It has no `stream`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndRecord {
    /// `exit` or `done`, in WebSocket framings only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#type: Option<Cow<'static, str>>,
    /// The exec.
    pub exec_id: String,
    /// How it ended.
    #[cfg_attr(feature = "openapi", schema(value_type = ExecOutcome))]
    pub outcome: Open<ExecOutcome>,
    /// As in a shell: 124 when its time was up, 128 plus the number of a signal. Absent where nothing ran to an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How long it ran, as a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// Bytes of stdout up to here: the offset to resume from.
    pub stdout_bytes: u64,
    /// Bytes of stderr up to here: the offset to resume from.
    pub stderr_bytes: u64,
    /// Bytes past the output limit, which were thrown away.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated_bytes: u64,
    /// `true`: the memory of the sandbox was used up, and the kernel ended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
    /// `true`: something that it left running holds its output open. What that writes is recorded as output of the exec, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_open: bool,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorBody>,
}

impl EndRecord {
    /// The record of an ending of which nothing else is known.
    pub fn new(exec: String, outcome: ExecOutcome) -> Self {
        Self {
            r#type: None,
            exec_id: exec,
            outcome: outcome.into(),
            exit_code: None,
            signal: None,
            duration: None,
            stdout_bytes: 0,
            stderr_bytes: 0,
            truncated_bytes: 0,
            oom: false,
            output_open: false,
            error: None,
        }
    }

    /// Whether the stream ends here, and the exec does not.
    pub fn is_interruption(&self) -> bool {
        self.outcome == ExecOutcome::Interrupted
    }
}

/// Why there is no more output, for clients that are told nothing but output: a line on stderr, as a shell would write it.
/// `error` tells it from what the command wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FailureRecord {
    /// `stderr`
    pub stream: OutputStream,
    /// One line for people.
    pub data: String,
    /// What went wrong.
    pub error: ErrorBody,
}

/// Whether a count is left out.
pub const fn is_zero(value: &u64) -> bool {
    *value == 0
}
