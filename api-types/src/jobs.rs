//! Jobs: a sandbox, files in, a command, and the end of the sandbox, as one durable unit.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::hidden::{Environment, Hidden};
use crate::word::{Open, words};

words! {
    /// Where a job stands, or how it ended.
    JobState {
        /// Other jobs have to end before it, or its time has not come.
        Waiting => "waiting",
        /// It waits for its turn.
        Queued => "queued",
        /// It has left the queue, and its attempt begins.
        Starting => "starting",
        /// Its command runs.
        Running => "running",
        /// Another attempt follows.
        Retrying => "retrying",
        /// Its command exited with 0. Terminal.
        Succeeded => "succeeded",
        /// It failed. Terminal.
        Failed => "failed",
        /// Its end was asked for. Terminal.
        Cancelled => "cancelled",
        /// Its time was up. Terminal.
        TimedOut => "timed_out",
        /// Nobody can say how it ended: it may have run. Terminal.
        Unknown => "unknown",
    }
}

words! {
    /// Why a job ended as it did.
    JobEndReason {
        /// Its command ended by itself.
        Exited => "exited",
        /// An attempt took too long.
        Timeout => "timeout",
        /// The whole job took too long.
        Deadline => "deadline",
        /// It said nothing of itself for too long.
        HeartbeatTimeout => "heartbeat_timeout",
        /// It could not be started.
        NotStarted => "not_started",
        /// A job that it needed did not end as it should.
        Need => "need",
        /// What it ran in is lost, and with it how it ended.
        Lost => "lost",
        /// What it left could not be kept.
        Artifacts => "artifacts",
        /// Its sealed values or its files are not there any more.
        InputLost => "input_lost",
        /// A client asked for its end.
        User => "user",
        /// A newer run of its schedule took its place.
        Replaced => "replaced",
    }
}

words! {
    /// Why a job in a queue does not advance.
    JobHoldReason {
        /// No node could take it, even an empty one.
        Unplaceable => "unplaceable",
        /// No node is there that could take it.
        NoNode => "no_node",
    }
}

words! {
    /// How an attempt of a job ended.
    AttemptOutcome {
        /// The command exited with 0.
        Succeeded => "succeeded",
        /// The command exited with another code, or was ended by a signal.
        Failed => "failed",
        /// Its time was up.
        TimedOut => "timed_out",
        /// It said nothing of itself for too long.
        HeartbeatTimedOut => "heartbeat_timed_out",
        /// It never ran.
        NotStarted => "not_started",
        /// Nobody can say how it ended. It may have run.
        Lost => "lost",
        /// Its end was asked for.
        Cancelled => "cancelled",
    }
}

/// What a job is to do. It needs a `command`; everything else has a default, and empty means the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobRequest {
    /// A name for people; need not be unique.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The image of its sandbox. A named template's image wins over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "alpine:latest"))]
    pub image: Option<String>,
    /// The template with the defaults of its sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The box-maker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Which executors of that provider; those of the pool that is called as the provider when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// A line for `/bin/sh -c`, or in mode `argv` the program.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required, example = "make test"))]
    pub command: Option<String>,
    /// Arguments. In shell mode they are quoted and appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// `shell` (the default) or `argv`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Environment variables. Their values are in no event and in no log: they are sealed, and destroyed when the job has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub env: Option<Environment>,
    /// More of them, whose values are masked with `*` in whatever the command writes. Each of at least 4 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub secrets: Option<Environment>,
    /// The working directory; `/workspace` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// Files that are written before the command starts. Their contents and `stdin` are together at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<JobFileRequest>>,
    /// What the command reads on its standard input.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub stdin: Option<Hidden>,
    /// The same in base 64, for bytes that are no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub stdin_b64: Option<Hidden>,
    /// The memory limit, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// The CPU limit; parts of a CPU are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<f64>,
    /// The greatest number of processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u32>,
    /// `none` or `bridge`; the template's, else the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// The container runtime, where the provider has more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// How long one attempt may take, as a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "10m"))]
    pub timeout: Option<String>,
    /// How long the whole job may take from its submission, queueing included, as a Go duration of at most 366 days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// Not before then (RFC 3339), at most 366 days ahead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<String>,
    /// When an attempt is followed by another one; never, when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetriesRequest>,
    /// What becomes of it when nobody can say how an attempt ended: `fail` (the default: its state is `unknown`) or `rerun`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_lost: Option<String>,
    /// -100 to 100; the greatest goes first, within its owner and queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// The queue that it waits in; `default` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Of the jobs with this key at most `concurrency_limit` run at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    /// How many; 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_limit: Option<u32>,
    /// Jobs that have to end before it begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needs: Option<Vec<NeedRequest>>,
    /// The client's own labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<BTreeMap<String, String>>,
    /// Which files are kept when the command has ended: globs, relative to the working directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Vec<String>>,
    /// How long its sandbox is kept after a failure, as a Go duration of at most 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_sandbox: Option<String>,
    /// Run in this sandbox instead of a fresh one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// Who is told of its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<CallbackRequest>,
    /// How long it is listed after its end, as a Go duration of at most 366 days. The log keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_after_end: Option<String>,
    /// How long the command may say nothing of itself, as a Go duration of 1s to 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heartbeat_timeout: Option<String>,
    /// In a batch: the same as `Idempotency-Key` of a job alone, and what jobs after it name it by in `needs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
}

impl JobRequest {
    /// A line for `/bin/sh -c` in a sandbox of an image.
    ///
    /// ```
    /// use api_types::JobRequest;
    ///
    /// let request = JobRequest { timeout: Some("10m".to_owned()), ..JobRequest::shell("alpine:latest", "make test") };
    /// let json = serde_json::to_string(&request)?;
    /// assert_eq!(json, r#"{"image":"alpine:latest","command":"make test","timeout":"10m"}"#);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn shell(image: impl Into<String>, line: impl Into<String>) -> Self {
        Self { image: Some(image.into()), command: Some(line.into()), ..Self::default() }
    }
}

/// A file that is written before a job's command starts: with `content` or with `content_b64`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobFileRequest {
    /// Where; a relative path begins in `/workspace`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub path: Option<String>,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub content: Option<Hidden>,
    /// Its bytes in base 64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub content_b64: Option<Hidden>,
    /// Its permission bits, in octal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// When an attempt is followed by another one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetriesRequest {
    /// How many attempts there may be beside the first: 0 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// The pause before the second attempt, as a Go duration of at most 24h; 1s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<String>,
    /// By what the pause grows each time: 1 to 10; 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The longest pause, as a Go duration of at most 24h; 5m by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_backoff: Option<String>,
    /// How much of the pause is left to chance: 0 to 1; 0.1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
    /// After which outcomes: `failed`, `timed_out`, `lost`; the first two by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<Vec<String>>,
    /// Only after one of these exit codes, if there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_exit_codes: Option<Vec<i32>>,
    /// Not after these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_on_exit_codes: Option<Vec<i32>>,
}

/// A job that has to end before another one begins.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NeedRequest {
    /// Its id. In a batch also the `key` of a job before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub job: Option<String>,
    /// How it has to end: `succeeded` (the default) or `finished`.
    #[serde(rename = "if", skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Which of its artifacts are put into the sandbox: globs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Vec<String>>,
    /// Below which directory; the working directory when absent.
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// Who is told of the end of a job: `url` is called as webhooks are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CallbackRequest {
    /// The address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub url: Option<String>,
    /// What comes back untouched. It is in no event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub token: Option<Hidden>,
    /// Headers that are sent along. Their values are in no event.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub headers: Option<Environment>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Job {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(example = "job-01jd2x5c0pe3tt4m1q5a8z0v9k"))]
    pub id: String,
    /// What its client calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it stands, or how it ended.
    #[cfg_attr(feature = "openapi", schema(value_type = JobState))]
    pub state: Open<JobState>,
    /// Why it ended as it did; absent before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<JobEndReason>))]
    pub reason: Option<Open<JobEndReason>>,
    /// One sentence about that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The exit code of its last attempt, where there was one. 128 and the signal's number where a signal ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// How many attempts there were.
    pub attempts: u32,
    /// Which one it is in its queue, from 1 on; absent when it does not wait there, and where more than 500 are before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u32>,
    /// What keeps it in its queue beside those before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<JobHold>,
    /// The queue.
    pub queue: String,
    /// -100 to 100; the greatest goes first.
    pub priority: i32,
    /// The image of its sandboxes; absent of one that runs in an existing sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The template that they are made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The box-maker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// The names of its environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_names: Vec<String>,
    /// The user whose it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<String>,
    /// The client's own labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The jobs that had to end before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    /// The sandbox of its last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// The exec of its last attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<String>,
    /// When it was submitted.
    pub created_at: DateTime<Utc>,
    /// Not before then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_at: Option<DateTime<Utc>>,
    /// Since when it waited in its queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<DateTime<Utc>>,
    /// When its first attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    /// When the next attempt may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// When the whole job has to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// When its end was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// What it said of itself last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<JobProgress>,
    /// How many files its last attempt left.
    #[serde(default, skip_serializing_if = "is_none_left")]
    pub artifacts: u32,
    /// The beginning and the end of what its last attempt wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<JobOutput>,
    /// The job that it repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<String>,
    /// The job that repeats it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retried_by: Option<String>,
    /// The schedule that submitted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The `Idempotency-Key` that it was submitted with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Where more of it is read.
    pub links: JobLinks,
}

impl Job {
    /// Whether nothing can happen to it any more. What a newer server calls by another name is taken for one that goes on.
    pub fn has_ended(&self) -> bool {
        self.state.known().is_some_and(|state| match state {
            JobState::Waiting
            | JobState::Queued
            | JobState::Starting
            | JobState::Running
            | JobState::Retrying => false,
            JobState::Succeeded
            | JobState::Failed
            | JobState::Cancelled
            | JobState::TimedOut
            | JobState::Unknown => true,
        })
    }
}

fn is_none_left(count: &u32) -> bool {
    *count == 0
}

/// What keeps a job in its queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobHold {
    /// The kind of reason.
    #[cfg_attr(feature = "openapi", schema(value_type = JobHoldReason))]
    pub reason: Open<JobHoldReason>,
    /// What is missing.
    pub message: String,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// What a job said of itself last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobProgress {
    /// How much is done, in per cent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
    /// A few words.
    pub message: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// The beginning and the end of what an attempt wrote: at most 4 KiB of each, with U+FFFD in place of bytes that are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobOutput {
    /// Of stdout.
    pub stdout: JobOutputPart,
    /// Of stderr.
    pub stderr: JobOutputPart,
}

/// The beginning and the end of one stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobOutputPart {
    /// How it begins.
    pub head: String,
    /// How it ends, where that is not in `head`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,
    /// How many bytes there are in the record.
    pub bytes: u64,
}

/// Paths about one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobLinks {
    /// The job itself.
    #[serde(rename = "self")]
    pub itself: String,
    /// Its attempts.
    pub attempts: String,
    /// What it wrote.
    pub output: String,
    /// What happened to it.
    pub timeline: String,
    /// What it left.
    pub artifacts: String,
}

impl JobLinks {
    /// The paths about this job.
    pub fn of(job: impl fmt::Display) -> Self {
        let path = format!("/api/v1/jobs/{job}");
        Self {
            attempts: format!("{path}/attempts"),
            output: format!("{path}/output"),
            timeline: format!("{path}/timeline"),
            artifacts: format!("{path}/artifacts"),
            itself: path,
        }
    }
}

/// A page of jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobList {
    /// In the order of their ids.
    pub jobs: Vec<Job>,
    /// What to send as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<String>,
}

/// The end of a job is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CancelRequest {
    /// How long the command has between SIGTERM and SIGKILL, as a Go duration of at most 10m; 10s by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grace: Option<String>,
}

/// The attempts of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttemptList {
    /// The first first.
    pub attempts: Vec<JobAttempt>,
}

/// One attempt of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobAttempt {
    /// Which one, from 1 on.
    pub n: u32,
    /// Its sandbox, once that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// Its exec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<String>,
    /// Where its command ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// When it left the queue.
    pub started_at: DateTime<Utc>,
    /// When its command began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_at: Option<DateTime<Utc>>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<AttemptOutcome>))]
    pub outcome: Option<Open<AttemptOutcome>>,
    /// The exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// One sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobTimeline {
    /// In the order in which it happened.
    pub entries: Vec<JobTimelineEntry>,
    /// What to send as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_after: Option<u64>,
}

/// One thing that happened to a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobTimelineEntry {
    /// Where it stands in the log.
    pub position: u64,
    /// When it happened.
    pub at: DateTime<Utc>,
    /// What: the type of the event.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who did it.
    pub actor: String,
    /// Of which attempt it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Why, or what, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Many jobs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchRequest {
    /// 1 to 1000 of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub jobs: Option<Vec<JobRequest>>,
}

/// What became of many jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchAnswer {
    /// One for each, in the order of the request.
    pub jobs: Vec<BatchEntry>,
}

/// What became of one of many jobs: it has an id, or a code and a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BatchEntry {
    /// 202, or what the answer would have been to this job alone.
    pub status: u16,
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The kind of error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<ErrorCode>))]
    pub code: Option<Open<ErrorCode>>,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
