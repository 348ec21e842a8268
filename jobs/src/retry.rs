//! What follows from how an attempt ended. Pure: the same record gives the same answer in every process.

use chrono::{DateTime, TimeDelta, Utc};
use events::{
    AttemptOutcome, CancelReason, EventId, ExecEnd, JobAttemptEnd, JobEndReason, JobId, JobOutcome,
    JobRetries, JobState, OnLost, RetryOn,
};

/// Of an attempt that never began because what was sealed for it is lost: no other attempt would find it.
pub const INPUT_LOST: &str = "the values or the files that it was submitted with are not there any more";

/// What follows from the end of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum After {
    /// Another one, then.
    Retry(DateTime<Utc>),
    /// The end of the job.
    End(JobOutcome, JobEndReason, String),
}

/// What follows from the end of the last attempt of a job.
pub fn after(job: &JobState, ended: &JobAttemptEnd) -> After {
    let end = |outcome, reason| After::End(outcome, reason, ended.message.clone());
    let natural = match ended.outcome {
        AttemptOutcome::Succeeded => return end(JobOutcome::Succeeded, JobEndReason::Exited),
        // The command was fine; what it left could not be kept.
        AttemptOutcome::Failed if ended.exit_code == Some(0) => {
            end(JobOutcome::Failed, JobEndReason::Artifacts)
        }
        AttemptOutcome::Failed => end(JobOutcome::Failed, JobEndReason::Exited),
        AttemptOutcome::NotStarted if ended.message == INPUT_LOST => {
            return end(JobOutcome::Failed, JobEndReason::InputLost);
        }
        AttemptOutcome::TimedOut => end(JobOutcome::TimedOut, JobEndReason::Timeout),
        AttemptOutcome::HeartbeatTimedOut => end(JobOutcome::TimedOut, JobEndReason::HeartbeatTimeout),
        AttemptOutcome::NotStarted => end(JobOutcome::Failed, JobEndReason::NotStarted),
        AttemptOutcome::Lost => end(JobOutcome::Unknown, JobEndReason::Lost),
        AttemptOutcome::Cancelled => end(JobOutcome::Cancelled, cancel_reason(job)),
    };
    if ended.outcome == AttemptOutcome::Lost && job.spec.on_lost == OnLost::Fail {
        return natural;
    }
    if job.deadline().is_some_and(|deadline| ended.at >= deadline) {
        return end(JobOutcome::TimedOut, JobEndReason::Deadline);
    }
    if job.cancel.is_some() {
        return end(JobOutcome::Cancelled, cancel_reason(job));
    }
    let retries = &job.spec.retries;
    if job.attempt() > retries.max || !is_retried(retries, ended, job.spec.on_lost) {
        return natural;
    }
    let due_at = ended.at + pause(retries, job.id, job.attempt());
    match job.deadline() {
        // It could not begin in time.
        Some(deadline) if due_at >= deadline => natural,
        Some(_) | None => After::Retry(due_at),
    }
}

/// Because of what a job is cancelled.
pub fn cancel_reason(job: &JobState) -> JobEndReason {
    match job.cancel.as_ref().map(|cancel| cancel.reason) {
        Some(CancelReason::Replaced) => JobEndReason::Replaced,
        Some(CancelReason::User) | None => JobEndReason::User,
    }
}

fn is_retried(retries: &JobRetries, ended: &JobAttemptEnd, on_lost: OnLost) -> bool {
    let on = |outcome| retries.on.contains(&outcome);
    match ended.outcome {
        AttemptOutcome::Succeeded | AttemptOutcome::Cancelled => false,
        AttemptOutcome::Failed => {
            let code = ended.exit_code.unwrap_or_default();
            let wanted = retries.on_exit_codes.is_empty() || retries.on_exit_codes.contains(&code);
            on(RetryOn::Failed) && wanted && !retries.not_on_exit_codes.contains(&code)
        }
        AttemptOutcome::NotStarted => on(RetryOn::Failed),
        AttemptOutcome::TimedOut | AttemptOutcome::HeartbeatTimedOut => on(RetryOn::TimedOut),
        AttemptOutcome::Lost => on_lost == OnLost::Rerun || on(RetryOn::Lost),
    }
}

/// The pause after so many attempts. What of it is left to chance follows from the job and the attempt, so that everybody who
/// works it out comes to the same.
pub fn pause(retries: &JobRetries, job: JobId, attempts: u32) -> TimeDelta {
    let doublings = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
    let longest = retries.max_backoff_ms as f64;
    let grown = retries.backoff_ms as f64 * retries.factor.max(0.0).powi(doublings);
    // Not a number where nothing grows without bounds.
    let full = if grown.is_finite() { grown.clamp(0.0, longest) } else { longest };
    let dice = EventId::derived(&["job-jitter", &job.to_string(), &attempts.to_string()]);
    let [first, second, ..] = *dice.as_bytes();
    let chance = f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX);
    let kept = full * (1.0 - retries.jitter.clamp(0.0, 1.0) * chance);
    TimeDelta::try_milliseconds(kept as i64).unwrap_or(TimeDelta::MAX)
}

/// How an attempt ended whose exec did.
pub fn outcome_of(job: &JobState, end: &ExecEnd) -> (AttemptOutcome, Option<i32>, String) {
    let (at, code) = match end {
        ExecEnd::Exited { code, at, .. } => (*at, *code),
        ExecEnd::Killed { signal, at, .. } => (*at, 128 + signal),
        ExecEnd::TimedOut { code, signal, .. } => {
            let code = code.or(signal.map(|signal| 128 + signal));
            return (AttemptOutcome::TimedOut, code, "its time was up".to_owned());
        }
        ExecEnd::Failed { message, .. } => return (AttemptOutcome::NotStarted, None, message.clone()),
        ExecEnd::OutcomeUnknown { message, .. } => return (AttemptOutcome::Lost, None, message.clone()),
    };
    let killed = matches!(end, ExecEnd::Killed { .. }) || code > 128;
    if job.cancel.as_ref().is_some_and(|cancel| cancel.at <= at) {
        return (AttemptOutcome::Cancelled, Some(code), "its end was asked for".to_owned());
    }
    if killed && job.deadline().is_some_and(|deadline| deadline <= at) {
        return (AttemptOutcome::TimedOut, Some(code), "the time of the whole job was up".to_owned());
    }
    if killed && silent_since(job).is_some_and(|due| due <= at) {
        let message = "it said nothing of itself for too long".to_owned();
        return (AttemptOutcome::HeartbeatTimedOut, Some(code), message);
    }
    if code == 0 {
        (AttemptOutcome::Succeeded, Some(0), String::new())
    } else {
        let message = match end {
            ExecEnd::Exited { signal: Some(signal), .. } | ExecEnd::Killed { signal, .. } => {
                format!("signal {signal} ended the command")
            }
            ExecEnd::Exited { .. }
            | ExecEnd::TimedOut { .. }
            | ExecEnd::Failed { .. }
            | ExecEnd::OutcomeUnknown { .. } => format!("the command exited with {code}"),
        };
        (AttemptOutcome::Failed, Some(code), message)
    }
}

/// When the running attempt has said nothing of itself for too long.
pub fn silent_since(job: &JobState) -> Option<DateTime<Utc>> {
    let patience =
        i64::try_from(job.spec.heartbeat_timeout_ms?).ok().and_then(TimeDelta::try_milliseconds)?;
    let began = job.attempts.last()?.running_at?;
    let heard = job.progress.as_ref().map_or(began, |progress| progress.at.max(began));
    heard.checked_add_signed(patience)
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
