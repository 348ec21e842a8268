//! What happens to execs: one exec is one run of one command.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Actor, ApiKeyId, ExecId, FailureCode};

words! {
    /// What happens to an exec.
    Exec(ExecEvent) {
        Requested(ExecRequested) = "exec.requested" [begins, told_by_state],
        Started(ExecStarted) = "exec.started" [begins, by_executors, told_by_state],
        Output(ExecOutput) = "exec.output" [by_executors, told_by_state, by_name_only],
        Input(ExecInput) = "exec.input" [by_executors, by_name_only],
        Resized(ExecResized) = "exec.resized" [by_executors],
        Signaled(ExecSignaled) = "exec.signaled" [by_executors],
        Attached(ExecAttached) = "exec.attached" [beside],
        Detached(ExecDetached) = "exec.detached" [beside],
        Exited(ExecExited) = "exec.exited" [by_executors, told_by_state, ends],
        TimedOut(ExecTimedOut) = "exec.timed_out" [by_executors, told_by_state, ends],
        Killed(ExecKilled) = "exec.killed" [by_executors, told_by_state, ends],
        Failed(ExecFailed) = "exec.failed" [begins, by_executors, told_by_state, ends],
        OutcomeUnknown(ExecOutcomeUnknown) = "exec.outcome_unknown" [by_executors, told_by_state, ends],
        OutputClosed(ExecOutputClosed) = "exec.output_closed" [by_executors, told_by_state],
    }
}

impl ExecEvent {
    /// Which exec it is about.
    pub const fn exec(&self) -> ExecId {
        match self {
            Self::Requested(data) => data.exec,
            Self::Started(data) => data.exec,
            Self::Output(data) => data.exec,
            Self::Input(data) => data.exec,
            Self::Resized(data) => data.exec,
            Self::Signaled(data) => data.exec,
            Self::Attached(data) => data.exec,
            Self::Detached(data) => data.exec,
            Self::Exited(data) => data.exec,
            Self::TimedOut(data) => data.exec,
            Self::Killed(data) => data.exec,
            Self::Failed(data) => data.exec,
            Self::OutcomeUnknown(data) => data.exec,
            Self::OutputClosed(data) => data.exec,
        }
    }

    /// What an end says about the output before it, where something had run.
    pub const fn ended(&self) -> Option<&ExecEnded> {
        match self {
            Self::Exited(data) => Some(&data.ended),
            Self::TimedOut(data) => Some(&data.ended),
            Self::Killed(data) => Some(&data.ended),
            Self::Requested(_)
            | Self::Started(_)
            | Self::Output(_)
            | Self::Input(_)
            | Self::Resized(_)
            | Self::Signaled(_)
            | Self::Attached(_)
            | Self::Detached(_)
            | Self::Failed(_)
            | Self::OutcomeUnknown(_)
            | Self::OutputClosed(_) => None,
        }
    }
}

/// The two streams of output. A terminal has only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl OutputStream {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl fmt::Display for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Height.
    pub rows: u16,
    /// Width.
    pub cols: u16,
}

/// What to run. Rides in a command; of the environment only names and fingerprints reach an event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// The program and its arguments. Never empty.
    pub argv: Vec<String>,
    /// The working directory; the sandbox's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `uid`, `uid:gid` or a name from the sandbox's /etc/passwd.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// A terminal of this size, instead of pipes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TerminalSize>,
    /// Whether stdin stays open for input; otherwise it is empty.
    #[serde(default)]
    pub stdin: bool,
    /// When to end it, in milliseconds from its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How long its end waits, in milliseconds, for what it left running to close its output; the server's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linger_ms: Option<u64>,
    /// A keyed fingerprint of the value of each of its own environment variables, by name: the same value of the same
    /// tenant has the same one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_hmac: BTreeMap<String, String>,
    /// Which of its own environment variables are secrets: their values are masked in all that it writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_names: Vec<String>,
    /// The digest of a request that came with an `Idempotency-Key`: the same key with another body is a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
}

/// `exec.requested`: it was asked for and answered before it began. Only of detached execs; of others the first event is
/// the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecRequested {
    /// Which exec.
    pub exec: ExecId,
    /// What is to run.
    #[serde(flatten)]
    pub spec: ExecSpec,
    /// The names of the environment variables that it will be given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_names: Vec<String>,
}

/// `exec.started`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecStarted {
    /// Which exec.
    pub exec: ExecId,
    /// What runs.
    #[serde(flatten)]
    pub spec: ExecSpec,
    /// The names of the environment variables that it was given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_names: Vec<String>,
    /// Its process id inside the sandbox.
    pub pid: u32,
}

/// `exec.output`: bytes at an offset of a stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecOutput {
    /// Which exec.
    pub exec: ExecId,
    /// Which stream.
    pub stream: OutputStream,
    /// Where the first byte stands in the stream.
    pub offset: u64,
    /// Pieces of the body that were seen later than the time of the event, in order. Empty: all of it was seen then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<OutputMark>,
    /// The bytes: the body of the event, not part of its header.
    #[serde(skip)]
    pub bytes: Bytes,
    /// Set on a recorded event whose bytes are not kept any more; then there are none.
    #[serde(skip)]
    pub missing: Option<MissingBody>,
}

/// A body that was recorded and is not there any more. Its event and its hash are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MissingBody {
    /// Why they are gone.
    pub why: Gone,
    /// How many bytes it had.
    pub length: u64,
}

/// Why recorded bytes are not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gone {
    /// The key was destroyed under which they were kept.
    Erased,
    /// They were older than what is kept.
    Expired,
}

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Erased => "erased",
            Self::Expired => "expired",
        })
    }
}

/// Where a later piece begins in the body of an output event, and how much later it was seen. On the wire: `[at, us]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u64)", into = "(u32, u64)")]
pub struct OutputMark {
    /// The index of its first byte in the body, greater than that of the mark before it.
    pub at: u32,
    /// Microseconds after the time of the event.
    pub later_us: u64,
}

impl From<(u32, u64)> for OutputMark {
    fn from((at, later_us): (u32, u64)) -> Self {
        Self { at, later_us }
    }
}

impl From<OutputMark> for (u32, u64) {
    fn from(mark: OutputMark) -> Self {
        (mark.at, mark.later_us)
    }
}

impl ExecOutput {
    /// Bytes that were all seen at one time.
    pub fn new(exec: ExecId, stream: OutputStream, offset: u64, bytes: impl Into<Bytes>) -> Self {
        Self { exec, stream, offset, marks: Vec::new(), bytes: bytes.into(), missing: None }
    }

    /// How many bytes it is about, also when they are not kept any more.
    pub fn length(&self) -> u64 {
        self.missing.map_or(self.bytes.len() as u64, |missing| missing.length)
    }
}

/// `exec.input`: bytes that a client sent to stdin, where input is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecInput {
    /// Which exec.
    pub exec: ExecId,
    /// The bytes: the body of the event, not part of its header.
    #[serde(skip)]
    pub bytes: Bytes,
    /// Set on a recorded event whose bytes are not kept any more; then there are none.
    #[serde(skip)]
    pub missing: Option<MissingBody>,
}

impl ExecInput {
    /// Bytes that were sent.
    pub fn new(exec: ExecId, bytes: impl Into<Bytes>) -> Self {
        Self { exec, bytes: bytes.into(), missing: None }
    }
}

/// `exec.resized`: its terminal got another size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecResized {
    /// Which exec.
    pub exec: ExecId,
    /// The new size.
    #[serde(flatten)]
    pub size: TerminalSize,
}

/// `exec.signaled`: a client sent it a signal, or asked for its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecSignaled {
    /// Which exec.
    pub exec: ExecId,
    /// The signal's number.
    pub signal: i32,
    /// Whether its end was asked for: the signal goes to all of it, and after a grace SIGKILL to what is left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub kill: bool,
}

/// Who or what asks an exec to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndCause {
    /// A client asked for the end of this exec.
    Request,
    /// Its sandbox ends: it was destroyed, or its deadline passed.
    Sandbox,
}

/// That an exec was asked to end. How it ended after that is another matter: it may have left by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Because of what.
    pub cause: EndCause,
    /// By whom, as far as whoever tells it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Actor>,
    /// With which signal first.
    pub signal: i32,
}

/// `exec.attached`: a viewer came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecAttached {
    /// To which exec.
    pub exec: ExecId,
    /// Names this attachment: its `exec.detached` has the same.
    pub attachment: ApiKeyId,
    /// Whether it may type.
    pub writes: bool,
    /// The address that it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// From which byte of stdout on it reads.
    pub stdout_offset: u64,
    /// From which byte of stderr on it reads.
    pub stderr_offset: u64,
    /// How many attachments of the same viewer to the same exec before this one were too many in a minute to be told.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub untold: u64,
}

/// `exec.detached`: a viewer has gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecDetached {
    /// From which exec.
    pub exec: ExecId,
    /// Which attachment.
    pub attachment: ApiKeyId,
    /// Up to which byte of stdout it was sent.
    pub stdout_offset: u64,
    /// Up to which byte of stderr it was sent.
    pub stderr_offset: u64,
    /// Why it ended.
    pub reason: DetachReason,
}

/// Why an attachment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetachReason {
    /// The viewer went.
    Left,
    /// The exec is over.
    Ended,
    /// The viewer link expired.
    Expired,
    /// The viewer took nothing for too long.
    Slow,
    /// The gateway stops, or could not read the record.
    Interrupted,
    /// The viewer link was revoked.
    Revoked,
}

/// What every ending says beside its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExecEnded {
    /// All bytes that it wrote to stdout and that the log has before this event.
    pub stdout_bytes: u64,
    /// The same for stderr.
    pub stderr_bytes: u64,
    /// Bytes past the output limit, which were read and thrown away. Not zero means: the output is truncated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated_bytes: u64,
    /// How long it ran, in microseconds.
    pub duration_us: u64,
    /// Whether the kernel ended it because the memory of the sandbox was used up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub oom: bool,
    /// Whether something that it left running still holds its output open. What that writes is recorded as output of this exec, until
    /// an `exec.output_closed` says that nothing more comes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub output_open: bool,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// `exec.exited`: it ended by itself. Terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecExited {
    /// Which exec.
    pub exec: ExecId,
    /// The exit code; 128 plus the signal's number when a signal ended it, as in a shell.
    pub code: i32,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// That it was asked to end before it did, and then left by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// The rest.
    #[serde(flatten)]
    pub ended: ExecEnded,
}

/// `exec.timed_out`: it was ended because its time was up. Terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecTimedOut {
    /// Which exec.
    pub exec: ExecId,
    /// The exit code with which it left by itself all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// The rest.
    #[serde(flatten)]
    pub ended: ExecEnded,
}

/// `exec.killed`: it was asked to end, and a signal ended it. One that left by itself after that has exited. Terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecKilled {
    /// Which exec.
    pub exec: ExecId,
    /// The signal that ended it.
    pub signal: i32,
    /// Who or what asked; nothing in events from before that was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// The rest.
    #[serde(flatten)]
    pub ended: ExecEnded,
}

/// `exec.failed`: it never started. Terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecFailed {
    /// Which exec.
    pub exec: ExecId,
    /// The kind of failure.
    pub code: FailureCode,
    /// One sentence that may be shown to the client.
    pub message: String,
    /// The digest of a request that came with an `Idempotency-Key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
}

/// `exec.outcome_unknown`: its sandbox went away while it ran. It is never silently run again. Terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecOutcomeUnknown {
    /// Which exec.
    pub exec: ExecId,
    /// One sentence that may be shown to the client.
    pub message: String,
}

/// `exec.output_closed`: nothing more is recorded of an exec that had ended with its output open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutputClosed {
    /// Of which exec.
    pub exec: ExecId,
    /// Why nothing more comes.
    pub reason: OutputCloseReason,
    /// All bytes that were written to stdout and that the log has before this event.
    pub stdout_bytes: u64,
    /// The same for stderr.
    pub stderr_bytes: u64,
    /// Bytes past the output limit, which were read and thrown away, from the start of the exec on. Not zero means: the output is
    /// truncated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub truncated_bytes: u64,
}

/// Why the output of an exec that has ended was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputCloseReason {
    /// Whatever held it open has closed it or has ended.
    Eof,
    /// A client closed it. What holds it open goes on, and what it writes is thrown away.
    Request,
    /// More execs of the sandbox had left their output open than are kept, and this was the oldest of them.
    TooMany,
    /// The limit of the exec's output was reached.
    Limit,
    /// The sandbox ended.
    Sandbox,
}
