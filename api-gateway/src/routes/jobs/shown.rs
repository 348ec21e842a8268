//! Jobs as the API shows them.

use api_types::{
    AttemptOutcome, Job, JobAttempt, JobEndReason, JobHold, JobHoldReason, JobLinks, JobOutput,
    JobOutputPart, JobProgress, JobState as Word, Open,
};
use events::{ExecId, JobId, JobPhase, JobPlace, JobState, OutputStream};
use record::{Order, RowQuery, StoreError, Turn};

use super::recorded;
use crate::error::ApiError;
use crate::gateway::Gateway;

/// How far the place in a queue is counted, and how many rows are read at once for it.
const MOST_AHEAD: u32 = 500;
const ROWS: u32 = 50;
/// How much of the beginning and of the end of each stream is shown, in bytes.
const SHOWN_BYTES: u64 = 4 << 10;

/// The job as it was when it was submitted: the same for ever.
pub(super) fn submitted(state: &JobState) -> Job {
    let first = state.as_submitted();
    shown(&first)
}

/// The job as it is, with what has to be looked up.
pub(super) async fn whole(gateway: &Gateway, state: &JobState) -> Result<Job, ApiError> {
    let mut job = shown(state);
    job.position = position(gateway, state).await?;
    job.output = match state.attempts.last().and_then(|attempt| attempt.exec) {
        Some(exec) => output(gateway, state, exec).await?,
        None => None,
    };
    if state.has_ended() {
        let retry = retry_of(state.id);
        let retried = recorded(gateway, &state.tenant, retry).await?;
        job.retried_by = retried.map(|_| retry.to_string());
    }
    Ok(job)
}

/// The job that repeats another one.
pub(super) fn retry_of(job: JobId) -> JobId {
    JobId::derived(&["retry", &job.to_string()])
}

/// The job, as far as its state tells.
pub(super) fn shown(state: &JobState) -> Job {
    let (reason, message, exit_code) = match &state.phase {
        JobPhase::Ended { reason, message, exit_code, .. } => {
            (Some(*reason), Some(message.clone()).filter(|text| !text.is_empty()), *exit_code)
        }
        JobPhase::Waiting
        | JobPhase::Queued
        | JobPhase::Starting
        | JobPhase::Running
        | JobPhase::Settling
        | JobPhase::Retrying { .. } => (None, None, None),
    };
    let (image, template, provider) = match &state.spec.place {
        JobPlace::Fresh(spec) => {
            (Some(spec.image.clone()), spec.template.clone(), Some(spec.provider.to_string()))
        }
        JobPlace::Existing(_) => (None, None, None),
    };
    let existing = match &state.spec.place {
        JobPlace::Existing(sandbox) => Some(*sandbox),
        JobPlace::Fresh(_) => None,
    };
    let last = state.attempts.last();
    let spec = &state.spec;
    Job {
        id: state.id.to_string(),
        name: spec.name.clone(),
        state: Open::<Word>::read(state.phase.as_str()),
        reason: reason.map(|reason| Open::<JobEndReason>::read(reason.as_str())),
        message,
        exit_code,
        attempts: state.attempt(),
        position: None,
        held: state.held.as_ref().map(|held| JobHold {
            reason: match held.reason {
                events::HoldReason::Unplaceable => JobHoldReason::Unplaceable,
                events::HoldReason::NoNode => JobHoldReason::NoNode,
            }
            .into(),
            message: held.message.clone(),
            since: held.since,
        }),
        queue: spec.queue.clone(),
        priority: spec.priority.into(),
        image,
        template,
        provider,
        argv: spec.command.argv.clone(),
        env_names: spec.env_names.clone(),
        owner_id: state.owner.clone(),
        labels: spec.labels.clone(),
        needs: spec.needs.iter().map(|need| need.job.to_string()).collect(),
        sandbox_id: last.and_then(|last| last.sandbox).or(existing).map(|id| id.to_string()),
        exec_id: last.and_then(|last| last.exec).map(|id| id.to_string()),
        created_at: state.submitted_at,
        run_at: spec.run_at,
        queued_at: state.queued_at,
        started_at: state.started_at,
        retry_at: if let JobPhase::Retrying { due_at } = state.phase { Some(due_at) } else { None },
        ended_at: state.ended_at(),
        expires_at: state.deadline(),
        cancel_requested_at: state.cancel.as_ref().map(|cancel| cancel.at),
        progress: state.progress.as_ref().map(|said| JobProgress {
            percent: said.percent,
            message: said.message.clone(),
            at: said.at,
        }),
        artifacts: u32::try_from(state.artifacts.len()).unwrap_or(u32::MAX),
        output: None,
        retry_of: spec.retry_of.map(|id| id.to_string()),
        retried_by: None,
        schedule: spec.schedule.clone(),
        idempotency_key: spec.idempotency_key.clone(),
        links: JobLinks::of(state.id),
    }
}

/// The attempts, the first first.
pub(super) fn attempts(state: &JobState) -> Vec<JobAttempt> {
    let shown = |(n, attempt): (u32, &events::JobAttempt)| JobAttempt {
        n,
        sandbox_id: attempt.sandbox.map(|id| id.to_string()),
        exec_id: attempt.exec.map(|id| id.to_string()),
        node: attempt.node.as_ref().map(ToString::to_string),
        started_at: attempt.admitted_at,
        running_at: attempt.running_at,
        ended_at: attempt.ended.as_ref().map(|end| end.at),
        outcome: attempt.ended.as_ref().map(|end| outcome(end.outcome).into()),
        exit_code: attempt.ended.as_ref().and_then(|end| end.exit_code),
        reason: attempt.ended.as_ref().map(|end| end.message.clone()).filter(|text| !text.is_empty()),
    };
    (1..).zip(&state.attempts).map(shown).collect()
}

pub(super) const fn outcome(outcome: events::AttemptOutcome) -> AttemptOutcome {
    match outcome {
        events::AttemptOutcome::Succeeded => AttemptOutcome::Succeeded,
        events::AttemptOutcome::Failed => AttemptOutcome::Failed,
        events::AttemptOutcome::TimedOut => AttemptOutcome::TimedOut,
        events::AttemptOutcome::HeartbeatTimedOut => AttemptOutcome::HeartbeatTimedOut,
        events::AttemptOutcome::NotStarted => AttemptOutcome::NotStarted,
        events::AttemptOutcome::Lost => AttemptOutcome::Lost,
        events::AttemptOutcome::Cancelled => AttemptOutcome::Cancelled,
    }
}

/// Which one it is of those of its tenant that wait in its queue.
async fn position(gateway: &Gateway, state: &JobState) -> Result<Option<u32>, ApiError> {
    if !matches!(state.phase, JobPhase::Queued) {
        return Ok(None);
    }
    let mut before: u32 = 0;
    let mut after: Option<Turn> = None;
    while before < MOST_AHEAD {
        let query = RowQuery {
            place: Some(events::searchable(&state.spec.queue)),
            order: Order::Turn(after.take()),
            limit: Some(ROWS),
            ..RowQuery::queued(state.tenant.clone())
        };
        let rows = gateway.store().list::<JobState>(query).await.map_err(ApiError::store)?;
        for row in &rows {
            before += 1;
            if row.id == state.id {
                return Ok(Some(before));
            }
        }
        match rows.last() {
            Some(last) if rows.len() == ROWS as usize => after = Some(turn_of(last)),
            // It has left the queue meanwhile.
            Some(_) | None => return Ok(None),
        }
    }
    Ok(None)
}

fn turn_of(state: &JobState) -> Turn {
    use events::Aggregate as _;
    let fields = state.fields();
    Turn { rank: fields.rank, due_us: fields.due_us.unwrap_or(0), key: state.id.into() }
}

/// The beginning and the end of what an exec wrote.
async fn output(gateway: &Gateway, state: &JobState, exec: ExecId) -> Result<Option<JobOutput>, ApiError> {
    let exec = gateway.store().exec_of(&state.tenant, exec).await.map_err(ApiError::store)?;
    let Some(exec) = exec else { return Ok(None) };
    let mut parts = Vec::new();
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        let bytes = exec.recorded(stream);
        let head = some(gateway, exec.id, stream, 0).await?;
        let tail = match bytes.saturating_sub(SHOWN_BYTES).max(SHOWN_BYTES) {
            from if from < bytes => Some(some(gateway, exec.id, stream, from).await?),
            _ => None,
        };
        parts.push(JobOutputPart { head, tail, bytes });
    }
    let mut parts = parts.into_iter();
    let part = |part: Option<JobOutputPart>| part.unwrap_or_default();
    Ok(Some(JobOutput { stdout: part(parts.next()), stderr: part(parts.next()) }))
}

/// What is recorded from an offset on; nothing where it is not kept any more.
async fn some(
    gateway: &Gateway,
    exec: ExecId,
    stream: OutputStream,
    offset: u64,
) -> Result<String, ApiError> {
    let most = usize::try_from(SHOWN_BYTES).unwrap_or(usize::MAX);
    match gateway.record().output.read(exec, stream, offset, most).await {
        Ok(chunks) => {
            let bytes: Vec<u8> =
                chunks.iter().flat_map(|chunk| chunk.bytes.iter().copied()).take(most).collect();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
        Err(StoreError::Gone { .. }) => Ok(String::new()),
        Err(error) => Err(ApiError::store(error)),
    }
}
