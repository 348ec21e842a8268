use events::{
    Actor, Aggregate, AttemptOutcome, Event, EventId, JobAttemptEnd, JobEndReason, JobId, JobOutcome,
    JobRetries, JobSpec, JobState, JobSubmitted, OnLost, RetryOn, TenantId,
};

use super::{After, INPUT_LOST, after, pause};

fn job(retries: JobRetries, on_lost: OnLost) -> JobState {
    let json = serde_json::json!({
        "place": { "existing": "sb-00000000000000000000000000" },
        "command": { "argv": ["true"] },
        "queue": "default",
    });
    let spec: JobSpec = serde_json::from_value(json).unwrap();
    let spec = Box::new(JobSpec { retries, on_lost, ..spec });
    let submitted = Event {
        id: EventId::from_bytes([1; 16]),
        tenant: TenantId::default_tenant(),
        sandbox: None,
        time: chrono::DateTime::UNIX_EPOCH,
        actor: Actor::Jobs,
        cause: None,
        request_id: None,
        traceparent: None,
        data: JobSubmitted { job: JobId::from_bytes([7; 16]), owner: None, spec }.into(),
    };
    JobState::apply(None, &submitted).unwrap()
}

fn ended(outcome: AttemptOutcome, exit_code: Option<i32>, message: &str) -> JobAttemptEnd {
    JobAttemptEnd { at: chrono::DateTime::UNIX_EPOCH, outcome, exit_code, message: message.to_owned() }
}

fn end_of(job: &JobState, ended: &JobAttemptEnd) -> Option<(JobOutcome, JobEndReason)> {
    match after(job, ended) {
        After::End(outcome, reason, _) => Some((outcome, reason)),
        After::Retry(_) => None,
    }
}

#[test]
fn what_may_have_run_is_run_again_only_where_that_does_no_harm() {
    let every = JobRetries {
        max: 5,
        on: vec![RetryOn::Failed, RetryOn::TimedOut, RetryOn::Lost],
        ..JobRetries::default()
    };
    let lost = ended(AttemptOutcome::Lost, None, "");
    assert_eq!(
        end_of(&job(every.clone(), OnLost::Fail), &lost),
        Some((JobOutcome::Unknown, JobEndReason::Lost))
    );
    assert_eq!(end_of(&job(every.clone(), OnLost::Rerun), &lost), None);
    let input = ended(AttemptOutcome::NotStarted, None, INPUT_LOST);
    assert_eq!(
        end_of(&job(every, OnLost::Rerun), &input),
        Some((JobOutcome::Failed, JobEndReason::InputLost))
    );
}

#[test]
fn exit_codes_say_what_is_tried_again() {
    let retries = JobRetries { max: 1, not_on_exit_codes: vec![64], ..JobRetries::default() };
    let job = job(retries, OnLost::Fail);
    assert_eq!(end_of(&job, &ended(AttemptOutcome::Failed, Some(1), "")), None);
    let never = ended(AttemptOutcome::Failed, Some(64), "");
    assert_eq!(end_of(&job, &never), Some((JobOutcome::Failed, JobEndReason::Exited)));
    let fine = ended(AttemptOutcome::Succeeded, Some(0), "");
    assert_eq!(end_of(&job, &fine), Some((JobOutcome::Succeeded, JobEndReason::Exited)));
}

#[test]
fn pauses_grow_up_to_the_longest_and_are_the_same_for_everybody() {
    let id = JobId::from_bytes([7; 16]);
    let plain = JobRetries { jitter: 0.0, max_backoff_ms: 5_000, ..JobRetries::default() };
    let of = |attempts| pause(&plain, id, attempts).num_milliseconds();
    assert_eq!([1, 2, 3, 4, u32::MAX].map(of), [1_000, 2_000, 4_000, 5_000, 5_000]);
    let spread = JobRetries { jitter: 0.5, ..plain };
    let once = pause(&spread, id, 2);
    assert!((1_000..=2_000).contains(&once.num_milliseconds()), "{once}");
    assert_eq!(pause(&spread, id, 2), once);
}
