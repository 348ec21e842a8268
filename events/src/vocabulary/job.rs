//! What happens to jobs: a job is a sandbox, files in, a command, artifacts out, and the end of the sandbox, as one durable unit.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{ContentHash, ExecSpec, FailureCode, SandboxSpec};
use crate::{ExecId, JobId, NodeId, SandboxId};

words! {
    /// What happens to a job.
    Job(JobEvent) {
        Submitted(JobSubmitted) = "job.submitted" [begins],
        Queued(JobQueued) = "job.queued",
        Held(JobHeld) = "job.held",
        Admitted(JobAdmitted) = "job.admitted",
        AttemptStarted(JobAttemptStarted) = "job.attempt_started",
        AttemptRunning(JobAttemptRunning) = "job.attempt_running",
        AttemptEnded(JobAttemptEnded) = "job.attempt_ended",
        RetryScheduled(JobRetryScheduled) = "job.retry_scheduled",
        ArtifactStored(JobArtifactStored) = "job.artifact_stored",
        Progressed(JobProgressed) = "job.progressed",
        CancelRequested(JobCancelRequested) = "job.cancel_requested",
        Succeeded(JobSucceeded) = "job.succeeded" [ends],
        Failed(JobFailed) = "job.failed" [ends],
        Cancelled(JobCancelled) = "job.cancelled" [ends],
        TimedOut(JobTimedOut) = "job.timed_out" [ends],
        OutcomeUnknown(JobOutcomeUnknown) = "job.outcome_unknown" [ends],
    }
}

impl JobEvent {
    /// Which job it is about.
    pub const fn job(&self) -> JobId {
        match self {
            Self::Submitted(data) => data.job,
            Self::Queued(data) => data.job,
            Self::Held(data) => data.job,
            Self::Admitted(data) => data.job,
            Self::AttemptStarted(data) => data.job,
            Self::AttemptRunning(data) => data.job,
            Self::AttemptEnded(data) => data.job,
            Self::RetryScheduled(data) => data.job,
            Self::ArtifactStored(data) => data.job,
            Self::Progressed(data) => data.job,
            Self::CancelRequested(data) => data.job,
            Self::Succeeded(data) => data.job,
            Self::Failed(data) => data.job,
            Self::Cancelled(data) => data.job,
            Self::TimedOut(data) => data.job,
            Self::OutcomeUnknown(data) => data.job,
        }
    }
}

/// The name of a queue where none is given.
pub const DEFAULT_QUEUE: &str = "default";

/// What a job is to do. Values of environment variables are secrets and are not part of it; their names are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSpec {
    /// A name for people; need not be unique.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it runs.
    pub place: JobPlace,
    /// What it runs. Its `timeout_ms` is that of one attempt.
    pub command: ExecSpec,
    /// The names of the environment variables that the command is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_names: Vec<String>,
    /// Files that are written before the command starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<JobFile>,
    /// What the command reads on its standard input; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<JobContent>,
    /// How long the whole job may take, in milliseconds from its submission, queueing included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// Not before then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<DateTime<Utc>>,
    /// When an attempt is followed by another one.
    #[serde(default, skip_serializing_if = "JobRetries::is_none")]
    pub retries: JobRetries,
    /// What becomes of it when nobody can say how an attempt ended.
    #[serde(default)]
    pub on_lost: OnLost,
    /// -100 to 100; the greatest goes first, within its owner and queue.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i16,
    /// The queue that it waits in.
    pub queue: String,
    /// At most `concurrency_limit` jobs of a tenant with the same key run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    /// How many; one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_limit: Option<u32>,
    /// Jobs that have to end before it begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<JobNeed>,
    /// The client's own labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Which files are kept when the command has ended: globs, relative to the working directory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// How long the sandbox is kept after a failure, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_sandbox_ms: Option<u64>,
    /// How long the command may say nothing of itself, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat_timeout_ms: Option<u64>,
    /// How long it is listed after its end, in milliseconds; the server's own time when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_after_end_ms: Option<u64>,
    /// Who is told of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<JobCallback>,
    /// The job that it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<JobId>,
    /// The schedule that submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Whether values that only it knows (of variables, of its callback) are kept, sealed, beside the log until it ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_sealed: bool,
    /// The `Idempotency-Key` that it was submitted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The digest of the request: the same key with another body is a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
}

fn is_zero(number: &i16) -> bool {
    *number == 0
}

/// Where a job runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant, reason = "it lives inside a specification that is larger than both")]
pub enum JobPlace {
    /// In a sandbox of its own for each attempt, which is destroyed afterwards.
    Fresh(SandboxSpec),
    /// In this one, which stays.
    Existing(SandboxId),
}

/// Bytes that came with a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobContent {
    /// A few, here, in base 64.
    Inline(String),
    /// Many, in the store of objects.
    Object(ObjectRef),
}

/// An object of a job in the store of objects, by what is in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectRef {
    /// SHA-256 of its bytes.
    pub sha256: ContentHash,
    /// How many bytes it has.
    pub size: u64,
}

/// A file that is written before a job's command starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFile {
    /// Where.
    pub path: String,
    /// Its permission bits; those of a new file when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// What is in it.
    pub content: JobContent,
}

/// When an attempt is followed by another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRetries {
    /// How many attempts there may be beside the first.
    pub max: u32,
    /// The pause before the second attempt, in milliseconds.
    pub backoff_ms: u64,
    /// By what the pause grows each time.
    pub factor: f64,
    /// The longest pause, in milliseconds.
    pub max_backoff_ms: u64,
    /// How much of the pause is left to chance, 0 to 1.
    pub jitter: f64,
    /// After which outcomes.
    pub on: Vec<RetryOn>,
    /// Only after one of these exit codes, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_exit_codes: Vec<i32>,
    /// Not after these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_on_exit_codes: Vec<i32>,
}

impl JobRetries {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for JobRetries {
    /// None.
    fn default() -> Self {
        Self {
            max: 0,
            backoff_ms: 1_000,
            factor: 2.0,
            max_backoff_ms: 300_000,
            jitter: 0.1,
            on: vec![RetryOn::Failed, RetryOn::TimedOut],
            on_exit_codes: Vec::new(),
            not_on_exit_codes: Vec::new(),
        }
    }
}

/// An outcome after which an attempt may be followed by another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// The command failed, or could not be started.
    Failed,
    /// Its time was up.
    TimedOut,
    /// Nobody can say how it ended.
    Lost,
}

/// What becomes of a job when nobody can say how an attempt ended: it may have run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// It ends, and its outcome is unknown.
    #[default]
    Fail,
    /// It is run again, as its retries say: it does no harm twice.
    Rerun,
}

/// A job that has to end before another one begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobNeed {
    /// Which.
    pub job: JobId,
    /// How it has to end.
    #[serde(default)]
    pub condition: NeedCondition,
    /// Which of its artifacts are put into the sandbox: globs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// Below which directory; the working directory when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// How a needed job has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeedCondition {
    /// Well.
    #[default]
    Succeeded,
    /// Somehow.
    Finished,
}

/// Who is told of the end of a job. Its token and the values of its headers are sealed beside the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCallback {
    /// The address.
    pub url: String,
    /// The names of the headers that are sent along.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header_names: Vec<String>,
}

/// `job.submitted`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobSubmitted {
    /// Which job.
    pub job: JobId,
    /// The user of the tenant whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// What it is to do.
    pub spec: Box<JobSpec>,
}

/// `job.queued`: what it waited for (other jobs, a time) has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobQueued {
    /// Which job.
    pub job: JobId,
}

/// Why a job in a queue does not advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldReason {
    /// No node could take it, even an empty one.
    Unplaceable,
    /// No node is there that could take it.
    NoNode,
}

/// `job.held`: it waits for something that does not come by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobHeld {
    /// Which job.
    pub job: JobId,
    /// Why; `None`: it does not any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<HoldReason>,
    /// What is missing, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// `job.admitted`: it has left the queue, and counts as running from here on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobAdmitted {
    /// Which job.
    pub job: JobId,
    /// For which attempt, from 1 on.
    pub attempt: u32,
}

/// `job.attempt_started`: its sandbox is asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobAttemptStarted {
    /// Which job.
    pub job: JobId,
    /// Which attempt, from 1 on.
    pub attempt: u32,
    /// The sandbox that it runs in.
    pub sandbox: SandboxId,
    /// The exec that it is, once it runs.
    pub exec: ExecId,
}

/// `job.attempt_running`: the command runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobAttemptRunning {
    /// Which job.
    pub job: JobId,
    /// Which attempt.
    pub attempt: u32,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The command exited with 0.
    Succeeded,
    /// The command exited with another code, or was ended by a signal.
    Failed,
    /// Its time was up.
    TimedOut,
    /// It said nothing of itself for too long.
    HeartbeatTimedOut,
    /// It never ran: its sandbox could not be made, or it could not be started in it.
    NotStarted,
    /// Nobody can say how it ended. It may have run.
    Lost,
    /// Its end was asked for.
    Cancelled,
}

/// `job.attempt_ended`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobAttemptEnded {
    /// Which job.
    pub job: JobId,
    /// Which attempt.
    pub attempt: u32,
    /// How.
    pub outcome: AttemptOutcome,
    /// The exit code, where there was one. 128 and the signal's number where a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What went wrong before it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<FailureCode>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// `job.retry_scheduled`: another attempt follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRetryScheduled {
    /// Which job.
    pub job: JobId,
    /// The attempt that follows.
    pub attempt: u32,
    /// When it may begin.
    pub due_at: DateTime<Utc>,
}

/// `job.artifact_stored`: a file that it left is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobArtifactStored {
    /// Which job.
    pub job: JobId,
    /// Which attempt left it.
    pub attempt: u32,
    /// The file.
    #[serde(flatten)]
    pub artifact: JobArtifact,
}

/// A file that a job left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobArtifact {
    /// Its path, relative to the working directory.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// What is in it.
    #[serde(flatten)]
    pub object: ObjectRef,
}

/// `job.progressed`: it says something of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobProgressed {
    /// Which job.
    pub job: JobId,
    /// Which attempt.
    pub attempt: u32,
    /// How much is done, in per cent; `None`: only that it is alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// A few words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// `job.cancel_requested`: its end was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobCancelRequested {
    /// Which job.
    pub job: JobId,
    /// How long the command has between SIGTERM and SIGKILL, in milliseconds.
    pub grace_ms: u64,
    /// Because of what.
    #[serde(default)]
    pub reason: CancelReason,
}

/// Why the end of a job was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelReason {
    /// A client asked for it.
    #[default]
    User,
    /// A newer run of its schedule takes its place.
    Replaced,
}

/// Why a job ended as it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobEndReason {
    /// Its command ended by itself.
    Exited,
    /// An attempt took too long.
    Timeout,
    /// The whole job took too long.
    Deadline,
    /// It said nothing of itself for too long.
    HeartbeatTimeout,
    /// It could not be started.
    NotStarted,
    /// A job that it needed did not end as it should.
    Need,
    /// What it ran in is lost, and with it how it ended.
    Lost,
    /// What it left could not be kept.
    Artifacts,
    /// Its sealed values or its files are not there any more.
    InputLost,
    /// A client asked for its end.
    User,
    /// A newer run of its schedule took its place.
    Replaced,
}

impl JobEndReason {
    /// As the wire writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Timeout => "timeout",
            Self::Deadline => "deadline",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::NotStarted => "not_started",
            Self::Need => "need",
            Self::Lost => "lost",
            Self::Artifacts => "artifacts",
            Self::InputLost => "input_lost",
            Self::User => "user",
            Self::Replaced => "replaced",
        }
    }
}

/// Declares the ends of a job, which all say the same.
macro_rules! ends {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
            pub struct $name {
                /// Which job.
                pub job: JobId,
                /// Why.
                pub reason: JobEndReason,
                /// The exit code of the last attempt, where there was one.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                pub exit_code: Option<i32>,
                /// One sentence.
                #[serde(default, skip_serializing_if = "String::is_empty")]
                pub message: String,
            }
        )+
    };
}

ends! {
    /// `job.succeeded`: the command exited with 0. Terminal.
    JobSucceeded,
    /// `job.failed`. Terminal.
    JobFailed,
    /// `job.cancelled`: its end was asked for. Terminal.
    JobCancelled,
    /// `job.timed_out`: its time, or that of its last attempt, was up. Terminal.
    JobTimedOut,
    /// `job.outcome_unknown`: nobody can say how it ended. Terminal.
    JobOutcomeUnknown,
}
