//! Jobs, given what happened.

use chrono::TimeZone;

use super::*;
use crate::wire::tests::one_of_each;
use crate::{
    ContentHash, EventId, JobAdmitted, JobArtifactStored, JobAttemptEnded, JobAttemptRunning,
    JobAttemptStarted, JobCancelled, JobFailed, JobQueued, JobRetryScheduled, JobSubmitted, JobSucceeded,
    ObjectRef,
};

const JOB: JobId = JobId::from_bytes([8; 16]);

fn at(second: i64) -> DateTime<Utc> {
    Utc.timestamp_opt(1_750_000_000 + second, 0).single().unwrap()
}

fn event(second: i64, data: impl Into<EventData>) -> Event {
    Event {
        id: EventId::new(),
        tenant: TenantId::default_tenant(),
        sandbox: None,
        time: at(second),
        actor: Actor::Jobs,
        cause: None,
        request_id: None,
        traceparent: None,
        data: data.into(),
    }
}

fn submitted(change: impl FnOnce(&mut JobSpec)) -> Event {
    let said = one_of_each().into_iter().find_map(|event| {
        if let EventData::Job(JobEvent::Submitted(said)) = event.data { Some(said) } else { None }
    });
    let JobSubmitted { job, owner, mut spec } = said.unwrap();
    (spec.needs, spec.run_at) = (Vec::new(), None);
    change(&mut spec);
    event(0, JobSubmitted { job, owner, spec })
}

fn admitted(second: i64, attempt: u32) -> Event {
    event(second, JobAdmitted { job: JOB, attempt })
}

fn started(second: i64, attempt: u32) -> Event {
    let (sandbox, exec) = (SandboxId::from_bytes([2; 16]), ExecId::from_bytes([3; 16]));
    event(second, JobAttemptStarted { job: JOB, attempt, sandbox, exec })
}

fn running(second: i64, attempt: u32) -> Event {
    event(second, JobAttemptRunning { job: JOB, attempt, node: None })
}

fn ended(second: i64, attempt: u32, outcome: AttemptOutcome) -> Event {
    let (failure, message) = (None, String::new());
    event(second, JobAttemptEnded { job: JOB, attempt, outcome, exit_code: Some(1), failure, message })
}

fn retry(second: i64, attempt: u32) -> Event {
    event(second, JobRetryScheduled { job: JOB, attempt, due_at: at(second + 10) })
}

fn artifact(second: i64, attempt: u32, path: &str) -> Event {
    let object = ObjectRef { sha256: ContentHash([1; 32]), size: 1 };
    let artifact = JobArtifact { path: path.to_owned(), mode: 0o644, object };
    event(second, JobArtifactStored { job: JOB, attempt, artifact })
}

fn failed(second: i64) -> Event {
    let (reason, message) = (JobEndReason::Exited, String::new());
    event(second, JobFailed { job: JOB, reason, exit_code: Some(1), message })
}

fn succeeded(second: i64) -> Event {
    let (reason, message) = (JobEndReason::Exited, String::new());
    event(second, JobSucceeded { job: JOB, reason, exit_code: Some(0), message })
}

fn fold(events: &[Event]) -> JobState {
    events.iter().fold(None, JobState::apply).unwrap()
}

fn judged(events: &[Event], next: &Event) -> Result<usize, DropReason> {
    JobState::judge(Some(&fold(events)), next)
}

/// Two attempts, of which the second succeeds.
fn whole() -> Vec<Event> {
    vec![
        submitted(|_| ()),
        admitted(1, 1),
        started(2, 1),
        running(3, 1),
        artifact(4, 1, "log"),
        ended(5, 1, AttemptOutcome::Failed),
        retry(6, 2),
        admitted(17, 2),
        started(18, 2),
        running(19, 2),
        artifact(20, 2, "out"),
        ended(21, 2, AttemptOutcome::Succeeded),
        succeeded(22),
    ]
}

#[test]
fn a_job_goes_its_way() {
    let all = whole();
    let states: Vec<_> = (1..=all.len()).map(|count| fold(&all[..count]).phase.as_str()).collect();
    assert_eq!(
        states,
        [
            "queued",
            "starting",
            "starting",
            "running",
            "running",
            "running",
            "retrying",
            "starting",
            "starting",
            "running",
            "running",
            "running",
            "succeeded"
        ]
    );
    let state = fold(&all);
    assert_eq!((state.attempts.len(), state.started_at, state.ended_at()), (2, Some(at(1)), Some(at(22))));
    let kept: Vec<_> = state.artifacts.iter().map(|artifact| artifact.path.as_str()).collect();
    assert_eq!(kept, ["out"], "those of the attempt before are not its own");
}

#[test]
fn each_event_is_recorded_once_and_in_its_place() {
    let all = whole();
    for (index, next) in all.iter().enumerate().skip(1) {
        assert_eq!(judged(&all[..index], next), Ok(0), "{:?}", next.data.type_name());
        let again = judged(&all[..=index], next);
        assert!(again.is_err(), "{} twice: {again:?}", next.data.type_name());
    }
}

#[test]
fn what_happened_may_be_applied_again_from_anywhere() {
    let all = whole();
    let state = fold(&all);
    for from in 0..all.len() {
        for to in from..=all.len() {
            let before = all[..to].iter().fold(None, JobState::apply);
            let again = all[from..].iter().fold(before, JobState::apply);
            assert_eq!(again.as_ref(), Some(&state), "from {from}, after {to}");
        }
    }
}

#[test]
fn of_two_drivers_the_first_is_believed() {
    let given = [submitted(|_| ()), admitted(1, 1)];
    assert_eq!(judged(&given, &admitted(2, 1)), Err(DropReason::Duplicate));
    assert_eq!(judged(&given, &admitted(2, 2)), Err(DropReason::Duplicate));
    let given = [submitted(|_| ()), admitted(1, 1), ended(2, 1, AttemptOutcome::Lost), retry(3, 2)];
    assert_eq!(judged(&given, &ended(4, 1, AttemptOutcome::Succeeded)), Err(DropReason::Duplicate));
    assert_eq!(judged(&given, &retry(4, 2)), Err(DropReason::Duplicate));
}

#[test]
fn nothing_ends_while_its_attempt_is_open_and_nothing_follows_an_end() {
    let given = [submitted(|_| ()), admitted(1, 1)];
    assert_eq!(judged(&given, &failed(2)), Err(DropReason::Contradiction));
    let given = [submitted(|_| ()), failed(1)];
    for late in [succeeded(2), admitted(2, 1), failed(2)] {
        assert_eq!(judged(&given, &late), Err(DropReason::AfterEnd));
    }
    assert_eq!(fold(&given).phase.as_str(), "failed");
}

#[test]
fn who_waits_for_others_or_for_a_time_is_not_queued() {
    let waiting = submitted(|spec| spec.run_at = Some(at(60)));
    assert_eq!(fold(std::slice::from_ref(&waiting)).phase, JobPhase::Waiting);
    let past = submitted(|spec| spec.run_at = Some(at(-60)));
    assert_eq!(fold(&[past]).phase, JobPhase::Queued);
    assert_eq!(judged(std::slice::from_ref(&waiting), &admitted(1, 1)), Err(DropReason::Duplicate));
    let queued = event(60, JobQueued { job: JOB });
    assert_eq!(judged(std::slice::from_ref(&waiting), &queued), Ok(0));
    assert_eq!(fold(&[waiting, queued]).queued_at, Some(at(60)));
}

#[test]
fn another_tenant_says_nothing_about_it() {
    let cancelled =
        JobCancelled { job: JOB, reason: JobEndReason::User, exit_code: None, message: String::new() };
    let foreign = Event { tenant: "red".parse().unwrap(), ..event(1, cancelled) };
    assert_eq!(judged(&[submitted(|_| ())], &foreign), Err(DropReason::Contradiction));
    assert!(!fold(&[submitted(|_| ()), foreign]).has_ended());
}

#[test]
fn the_greatest_priority_has_the_least_rank() {
    let rank = |priority| fold(&[submitted(|spec| spec.priority = priority)]).fields().rank;
    assert!(rank(100) < rank(0) && rank(0) < rank(-100));
}
