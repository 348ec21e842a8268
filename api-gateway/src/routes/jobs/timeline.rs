//! `GET /jobs/{id}/timeline`

use api_types::{JobTimeline, JobTimelineEntry};
use axum::Json;
use axum::extract::State;
use events::{EventData, Frame, JobEvent, JobState, Key, Kind, Position};
use record::EventFilter;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{find, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JobPath, QueryOf, whole};
use crate::gateway::Gateway;

/// How many entries an answer has at most, and where the request does not say.
pub(crate) const MAX_ENTRIES: u32 = 1000;
const DEFAULT_ENTRIES: u32 = 200;

/// Which part of it.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    /// What follows this position: the `next_after` of the page before.
    pub after: Option<String>,
    /// At most so many: 1 to 1000, 200 by default.
    pub limit: Option<String>,
}

impl TimelineQuery {
    pub(crate) fn read(&self) -> Result<(Position, u32), ApiError> {
        let after = match self.after.as_deref() {
            None => Some(0),
            Some(text) => whole::<i64>(text).map(i64::unsigned_abs),
        };
        let limit = match self.limit.as_deref() {
            None => Some(DEFAULT_ENTRIES),
            Some(text) => whole(text).filter(|limit| (1..=MAX_ENTRIES).contains(limit)),
        };
        let after = after.ok_or_else(|| ApiError::bad_request("after must be a position"))?;
        let limit =
            limit.ok_or_else(|| ApiError::bad_request(format!("limit must be 1 to {MAX_ENTRIES}")))?;
        Ok((Position(after), limit))
    }
}

/// What happened to a job, in the order in which it happened: submission, queue, admission, attempts, artifacts, end.
#[utoipa::path(
    get,
    path = "/jobs/{id}/timeline",
    tag = "jobs",
    params(("id" = String, Path, description = "The job"), TimelineQuery),
    responses(
        (status = 200, description = "What happened", body = JobTimeline),
        (status = 400, description = "No position, or no limit", body = ErrorBody),
        (status = 404, description = "No such job", body = ErrorBody),
        (status = 410, description = "Its beginning is not kept any more: read it `after` the floor", body = ErrorBody),
    )
)]
pub(crate) async fn timeline(
    State(gateway): State<Gateway>,
    caller: Caller,
    JobPath(id): JobPath,
    QueryOf(query): QueryOf<TimelineQuery>,
) -> Result<Json<JobTimeline>, ApiError> {
    let (after, limit) = query.read()?;
    let state = find(&gateway, &caller, id).await?;
    let of_job = EventFilter::of_thing(&Kind::of::<JobState>(), &Key::from(id));
    let filter = EventFilter { tenant: Some(state.tenant), ..of_job };
    // One more than fits tells whether there is another page.
    let mut frames = gateway.store().read(&filter, after, limit + 1).await.map_err(ApiError::store)?;
    let more = frames.len() > limit as usize;
    frames.truncate(limit as usize);
    let next_after = frames.last().filter(|_| more).map(|last| last.position.0);
    // An event of a newer build has no entry here.
    let entries = frames.iter().filter_map(entry).collect();
    Ok(Json(JobTimeline { entries, next_after }))
}

fn entry(frame: &Frame) -> Option<JobTimelineEntry> {
    let event = frame.decode().ok()?;
    let EventData::Job(said) = &event.data else { return None };
    let (attempt, reason) = told(said);
    Some(JobTimelineEntry {
        position: frame.position.0,
        at: event.time,
        kind: event.data.type_name().into(),
        actor: event.actor.to_string(),
        attempt,
        reason: reason.filter(|text| !text.is_empty()),
    })
}

/// Of which attempt an event is, and what it says.
fn told(said: &JobEvent) -> (Option<u32>, Option<String>) {
    let end = |reason: events::JobEndReason, message: &str| {
        let reason = reason.as_str();
        Some(if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") })
    };
    match said {
        JobEvent::Submitted(_) | JobEvent::Queued(_) => (None, None),
        JobEvent::Held(held) => (None, Some(held.message.clone())),
        JobEvent::Admitted(admitted) => (Some(admitted.attempt), None),
        JobEvent::AttemptStarted(started) => (Some(started.attempt), Some(format!("in {}", started.sandbox))),
        JobEvent::AttemptRunning(running) => {
            (Some(running.attempt), running.node.as_ref().map(|node| format!("on {node}")))
        }
        JobEvent::AttemptEnded(ended) => {
            let outcome = api_types::Word::as_str(shown::outcome(ended.outcome));
            let said = match (ended.exit_code, ended.message.as_str()) {
                (Some(code), "") => format!("{outcome}: exit code {code}"),
                (None, "") => outcome.to_owned(),
                (_, message) => format!("{outcome}: {message}"),
            };
            (Some(ended.attempt), Some(said))
        }
        JobEvent::RetryScheduled(retry) => {
            (Some(retry.attempt), Some(format!("not before {}", retry.due_at.to_rfc3339())))
        }
        JobEvent::ArtifactStored(stored) => (Some(stored.attempt), Some(stored.artifact.path.clone())),
        JobEvent::Progressed(said) => {
            let percent = said.percent.map(|percent| format!("{percent}% "));
            (Some(said.attempt), Some(format!("{}{}", percent.unwrap_or_default(), said.message)))
        }
        JobEvent::CancelRequested(cancel) => (
            None,
            Some(match cancel.reason {
                events::CancelReason::User => "a client asked for its end".to_owned(),
                events::CancelReason::Replaced => "a newer run of its schedule takes its place".to_owned(),
            }),
        ),
        JobEvent::Succeeded(ended) => (None, end(ended.reason, &ended.message)),
        JobEvent::Failed(ended) => (None, end(ended.reason, &ended.message)),
        JobEvent::Cancelled(ended) => (None, end(ended.reason, &ended.message)),
        JobEvent::TimedOut(ended) => (None, end(ended.reason, &ended.message)),
        JobEvent::OutcomeUnknown(ended) => (None, end(ended.reason, &ended.message)),
    }
}
