//! `POST /schedules`

use api_types::{Schedule, ScheduleRequest};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use events::{EventId, ScheduleCreated, ScheduleId};

use super::spec::Spec;
use super::work::work;
use super::{no_schedule, of_tenant, sealed, shown, until};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::JsonBody;
use crate::gateway::Gateway;

/// Makes a schedule: a job, and when it is to be submitted.
#[utoipa::path(
    post,
    path = "/schedules",
    tag = "schedules",
    request_body = ScheduleRequest,
    responses(
        (status = 201, description = "The schedule", body = Schedule),
        (status = 400, description = "A field is wrong, or the rule is never due or too often", body = ErrorBody),
        (status = 409, description = "There is one with this name, or as many as there may be", body = ErrorBody),
    )
)]
pub(crate) async fn create(
    State(gateway): State<Gateway>,
    caller: Caller,
    JsonBody(request): JsonBody<ScheduleRequest>,
) -> Result<(StatusCode, Json<Schedule>), ApiError> {
    let now = gateway.clock().now();
    let spec = Spec::read(request, now, now)?;
    let others = of_tenant(&gateway, &caller.tenant);
    if others.iter().any(|other| other.schedule.name == spec.name) {
        return Err(ApiError::conflict(format!("there is a schedule {} already", spec.name)));
    }
    let most = gateway.config().max_schedules_per_tenant;
    if others.len() >= most {
        return Err(ApiError::conflict(format!("there are {most} schedules already")));
    }
    let id = ScheduleId::new();
    let schedule = schedule(&gateway, &caller, id, spec).await?;
    gateway.publish(&caller, None, EventId::new(), now, ScheduleCreated { schedule }).await?;
    let state = until(&gateway, &caller.tenant, id, |state| state.is_some()).await?;
    let state = state.ok_or_else(|| no_schedule(id))?;
    Ok((StatusCode::CREATED, Json(shown::shown(state, gateway.clock().now()))))
}

/// As it goes into the log.
pub(super) async fn schedule(
    gateway: &Gateway,
    caller: &Caller,
    id: ScheduleId,
    spec: Spec,
) -> Result<events::Schedule, ApiError> {
    let work = work(gateway, caller, id, &spec.job).await?;
    let redaction = gateway.redaction().with_secrets(sealed::secrets(&spec.job));
    let mut job = sealed::shown(&spec.job);
    redaction.json(&mut job);
    Ok(events::Schedule {
        id,
        name: spec.name,
        owner: caller.user.clone(),
        timing: spec.timing,
        timezone: spec.timezone,
        overlap: spec.overlap,
        catch_up: spec.catch_up,
        job,
        sealed: sealed::seal(&gateway.config().master_key, &caller.tenant, id, &work)?,
    })
}
