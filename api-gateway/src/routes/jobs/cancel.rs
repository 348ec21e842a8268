//! `POST /jobs/{id}/cancel`

use std::time::Duration;

use api_types::{CancelRequest, Job};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use events::{CancelReason, EventId, JobCancelRequested, JobState};
use feed::{After, Topic};

use super::{RECORD_PATIENCE, find, shown, spec, wait};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JobPath, OptionalJsonBody};
use crate::gateway::Gateway;

const DEFAULT_GRACE: Duration = Duration::from_secs(10);
pub(crate) const MAX_GRACE: Duration = Duration::from_secs(600);

/// Asks for the end of a job, whether it waits or runs: its command is sent SIGTERM, and SIGKILL after `grace`. Asked for once more,
/// or of a job that has ended, nothing changes. What does not run yet when that is recorded never does.
#[utoipa::path(
    post,
    path = "/jobs/{id}/cancel",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    request_body = Option<CancelRequest>,
    responses(
        (status = 202, description = "It is asked for; or the job has ended before", body = Job),
        (status = 400, description = "No length of time", body = ErrorBody),
        (status = 404, description = "No such job", body = ErrorBody),
    )
)]
pub(crate) async fn cancel(
    State(gateway): State<Gateway>,
    caller: Caller,
    JobPath(id): JobPath,
    body: OptionalJsonBody<CancelRequest>,
) -> Result<(StatusCode, Json<Job>), ApiError> {
    let grace = spec::length("grace", body.value.grace.as_deref(), MAX_GRACE)?.unwrap_or(DEFAULT_GRACE);
    let reader = gateway.feed().subscribe(Topic::Job(id), After::Now);
    let mut state = find(&gateway, &caller, id).await?;
    let is_asked = |state: &JobState| state.cancel.is_some() || state.has_ended();
    if !is_asked(&state) {
        let asked = JobCancelRequested {
            job: id,
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            reason: CancelReason::User,
        };
        // The same event, whoever asks: of many it is stored once.
        let event = EventId::derived(&["job.cancel", &id.to_string()]);
        gateway.publish(&caller, None, event, gateway.clock().now(), asked).await?;
        let waited = wait(&gateway, &caller.tenant, id, reader, RECORD_PATIENCE, is_asked).await?;
        state = waited.filter(is_asked).ok_or_else(|| {
            ApiError::unrecorded("the recorder does not follow: the end is asked for, and comes later")
        })?;
    }
    shown::whole(&gateway, &state).await.map(|job| (StatusCode::ACCEPTED, Json(job)))
}
