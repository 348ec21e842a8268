//! What the driver says and asks for. All ids follow from the job, the attempt and the step, so that two drivers that both believe
//! to be at work say the same thing.

use chrono::{DateTime, TimeDelta, Utc};
use events::{
    Actor, AttemptOutcome, Command, CommandEnvelope, CommandId, DestroyReason, Event, EventData, EventId,
    ExecId, ExecRequested, ExecSpec, FailureCode, HoldReason, JobAdmitted, JobArtifact, JobArtifactStored,
    JobAttemptEnded, JobAttemptRunning, JobAttemptStarted, JobCancelled, JobEndReason, JobFailed, JobHeld,
    JobId, JobOutcome, JobOutcomeUnknown, JobQueued, JobRetryScheduled, JobState, JobSucceeded, JobTimedOut,
    NodeId, SandboxFailed, SandboxId, SandboxRequested, SandboxSpec, SecretMap, TenantId, Term,
};

use crate::effect::Request;
use crate::entry::Light;

/// How long a sandbox lives beyond the time of its command: to be made, to be given files, and to have its artifacts taken.
const MARGIN_MS: u64 = 600_000;
/// How long a command may run whose job says nothing of it.
const UNLIMITED_MS: u64 = 24 * 3_600_000;
/// How long a sandbox of an admitted job waits for room.
const ROOM: TimeDelta = TimeDelta::hours(24);

/// An event of the driver.
fn event(
    tenant: &TenantId,
    sandbox: Option<SandboxId>,
    id: EventId,
    now: DateTime<Utc>,
    data: EventData,
) -> Event {
    Event {
        id,
        tenant: tenant.clone(),
        sandbox,
        time: now,
        actor: Actor::Jobs,
        cause: None,
        request_id: None,
        traceparent: None,
        data,
    }
}

/// An event about a job, by its step and attempt.
fn about(job: (&TenantId, JobId), step: &str, attempt: u32, now: DateTime<Utc>, data: EventData) -> Event {
    let (tenant, id) = job;
    let id = EventId::derived(&["job", &id.to_string(), step, &attempt.to_string()]);
    event(tenant, None, id, now, data)
}

/// It has left its queue, and its attempt begins.
pub fn admitted(job: &Light, now: DateTime<Utc>) -> [Event; 2] {
    let attempt = job.attempt.saturating_add(1);
    let (id, whose) = (job.id, (&job.tenant, job.id));
    [
        about(whose, "admitted", attempt, now, JobAdmitted { job: id, attempt }.into()),
        started(job, attempt, now),
    ]
}

/// The sandbox of an attempt is asked for.
pub fn started(job: &Light, attempt: u32, now: DateTime<Utc>) -> Event {
    let data = JobAttemptStarted {
        job: job.id,
        attempt,
        sandbox: job.sandbox_of(attempt),
        exec: job.exec_of(attempt),
    };
    about((&job.tenant, job.id), "attempt_started", attempt, now, data.into())
}

/// What it waited for has come.
pub fn queued(job: &Light, now: DateTime<Utc>) -> Event {
    about((&job.tenant, job.id), "queued", 0, now, JobQueued { job: job.id }.into())
}

/// What keeps it in its queue.
pub fn held(job: &Light, reason: Option<HoldReason>, message: String, now: DateTime<Utc>) -> Event {
    // It may be held more than once.
    let step = format!("held.{}", now.timestamp_micros());
    let data = JobHeld { job: job.id, reason, message };
    about((&job.tenant, job.id), &step, job.attempt, now, data.into())
}

/// Its command runs.
pub fn running(job: &JobState, node: Option<NodeId>, now: DateTime<Utc>) -> Event {
    let attempt = job.attempt();
    let data = JobAttemptRunning { job: job.id, attempt, node };
    about((&job.tenant, job.id), "attempt_running", attempt, now, data.into())
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct HowItEnded {
    /// In one word.
    pub outcome: AttemptOutcome,
    /// With which code.
    pub exit_code: Option<i32>,
    /// What went wrong before it ran.
    pub failure: Option<FailureCode>,
    /// In a sentence.
    pub message: String,
}

/// Its attempt has ended.
pub fn attempt_ended(job: &JobState, how: HowItEnded, now: DateTime<Utc>) -> Event {
    let attempt = job.attempt();
    let HowItEnded { outcome, exit_code, failure, message } = how;
    let data = JobAttemptEnded { job: job.id, attempt, outcome, exit_code, failure, message };
    about((&job.tenant, job.id), "attempt_ended", attempt, now, data.into())
}

/// Another attempt follows.
pub fn retry_scheduled(job: &JobState, due_at: DateTime<Utc>, now: DateTime<Utc>) -> Event {
    let attempt = job.attempt().saturating_add(1);
    let data = JobRetryScheduled { job: job.id, attempt, due_at };
    about((&job.tenant, job.id), "retry_scheduled", attempt, now, data.into())
}

/// A file that it left is kept.
pub fn artifact_stored(job: &JobState, artifact: JobArtifact, now: DateTime<Utc>) -> Event {
    let attempt = job.attempt();
    let step = format!("artifact:{}:{}", artifact.path, artifact.object.sha256);
    about(
        (&job.tenant, job.id),
        &step,
        attempt,
        now,
        JobArtifactStored { job: job.id, attempt, artifact }.into(),
    )
}

/// It has ended. There is one id for all ends of a job.
pub fn ended(
    (tenant, job): (&TenantId, JobId),
    outcome: JobOutcome,
    reason: JobEndReason,
    exit_code: Option<i32>,
    message: String,
    now: DateTime<Utc>,
) -> Event {
    let data: EventData = match outcome {
        JobOutcome::Succeeded => JobSucceeded { job, reason, exit_code, message }.into(),
        JobOutcome::Failed => JobFailed { job, reason, exit_code, message }.into(),
        JobOutcome::Cancelled => JobCancelled { job, reason, exit_code, message }.into(),
        JobOutcome::TimedOut => JobTimedOut { job, reason, exit_code, message }.into(),
        JobOutcome::Unknown => JobOutcomeUnknown { job, reason, exit_code, message }.into(),
    };
    about((tenant, job), "ended", 0, now, data)
}

/// A fresh sandbox for an attempt: what is said of it, and what is asked for.
pub fn sandbox(job: &JobState, spec: &SandboxSpec, now: DateTime<Utc>) -> Request {
    let attempt = job.attempt();
    let id = job.sandbox_of(attempt);
    let spec = SandboxSpec { job: Some(job.id), owner: job.owner.clone(), ..spec.clone() };
    let timeout = job.spec.command.timeout_ms.unwrap_or(UNLIMITED_MS);
    let ttl_ms = timeout.saturating_add(job.spec.keep_sandbox_ms.unwrap_or(0)).saturating_add(MARGIN_MS);
    let start_by = micros(now + ROOM);
    let term = Term { ttl_ms, lifetime_ms: ttl_ms, start_by };
    let (expires_at, lifetime_ends_at) = term.ends(start_by);
    let requested = SandboxRequested { spec: spec.clone(), expires_at, lifetime_ends_at, term: Some(term) };
    let event_id = EventId::derived(&["job-sandbox", &job.id.to_string(), &attempt.to_string()]);
    let pool = spec.pool();
    let create = Command::CreateSandbox { spec, env: SecretMap::default(), expires_at, term: Some(term) };
    Request {
        event: event(&job.tenant, Some(id), event_id, now, requested.into()),
        command: command(&job.tenant, id, CommandId::of_create(id), create),
        pool,
    }
}

fn micros(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

/// That the command of an attempt is asked for.
pub fn exec_requested(job: &JobState, now: DateTime<Utc>) -> Event {
    let attempt = job.attempt();
    let (exec, sandbox) = (job.exec_of(attempt), job.sandbox_of(attempt));
    let env_names = job.spec.env_names.clone();
    let requested = ExecRequested { exec, spec: job.spec.command.clone(), env_names };
    let id = EventId::derived(&["exec.requested", &exec.to_string()]);
    event(&job.tenant, Some(sandbox), id, now, requested.into())
}

/// The command that starts the exec of an attempt. It is one message however often it is sent.
pub fn start_exec(job: &JobState, spec: ExecSpec, env: SecretMap) -> CommandEnvelope {
    let attempt = job.attempt();
    let (exec, sandbox): (ExecId, _) = (job.exec_of(attempt), job.sandbox_of(attempt));
    let id = CommandId::derived(&["job-exec", &job.id.to_string(), &attempt.to_string()]);
    command(&job.tenant, sandbox, id, Command::StartExec { exec, spec, env })
}

/// The command that ends a sandbox of a job, when it is asked for the `round`th time.
pub fn destroy(tenant: &TenantId, sandbox: SandboxId, round: u32) -> CommandEnvelope {
    let id = CommandId::derived(&["job-destroy", &sandbox.to_string(), &round.to_string()]);
    command(tenant, sandbox, id, Command::DestroySandbox { reason: DestroyReason::User })
}

/// The end of a sandbox that no executor has taken, and whose job needs it no more.
pub fn never_ran(tenant: &TenantId, sandbox: SandboxId, now: DateTime<Utc>) -> Event {
    let id = EventId::derived(&["never-ran", &sandbox.to_string()]);
    let message = "its job ended before an executor had room for it".to_owned();
    event(tenant, Some(sandbox), id, now, SandboxFailed { code: FailureCode::DeadlinePassed, message }.into())
}

fn command(tenant: &TenantId, sandbox: SandboxId, id: CommandId, command: Command) -> CommandEnvelope {
    CommandEnvelope {
        id,
        tenant: tenant.clone(),
        actor: Actor::Jobs,
        request_id: None,
        traceparent: None,
        sandbox,
        command,
    }
}
