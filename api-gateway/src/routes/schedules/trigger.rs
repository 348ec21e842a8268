//! `POST /schedules/{id}/trigger`

use api_types::TriggeredJob;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use events::{EventId, JobId, ScheduleState, ScheduleTriggered};
use feed::{After, Topic};

use super::find;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::SchedulePath;
use crate::gateway::Gateway;
use crate::routes::templates::recorded;

/// Has its job submitted now: at once if none of its jobs runs or if it replaces them, else when the one before has ended. Also
/// when it is paused.
#[utoipa::path(
    post,
    path = "/schedules/{id}/trigger",
    tag = "schedules",
    params(("id" = String, Path, description = "The schedule, by its id or its name")),
    responses(
        (status = 202, description = "The job", body = TriggeredJob),
        (status = 404, description = "No such schedule", body = ErrorBody),
        (status = 409, description = "As many jobs wait as may wait", body = ErrorBody),
    )
)]
pub(crate) async fn trigger(
    State(gateway): State<Gateway>,
    caller: Caller,
    SchedulePath(named): SchedulePath,
) -> Result<(StatusCode, Json<TriggeredJob>), ApiError> {
    let state = find(&gateway, &caller, &named)?;
    if state.waiting.len() >= ScheduleState::MOST_WAITING {
        return Err(ApiError::conflict(format!(
            "{} jobs of the schedule wait already",
            ScheduleState::MOST_WAITING
        )));
    }
    let (event, job) = (EventId::new(), JobId::new());
    let reader = gateway.feed().subscribe(Topic::All, After::Now);
    let triggered = ScheduleTriggered { schedule: state.schedule.id, job };
    gateway.publish(&caller, None, event, gateway.clock().now(), triggered).await?;
    recorded(reader, event).await?;
    Ok((StatusCode::ACCEPTED, Json(TriggeredJob { job: job.to_string() })))
}
