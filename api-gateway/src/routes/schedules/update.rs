//! `PUT /schedules/{id}`

use api_types::{Schedule, ScheduleRequest};
use axum::Json;
use axum::extract::State;
use events::{EventId, ScheduleUpdated, Timing};

use super::create::schedule;
use super::spec::Spec;
use super::{find, no_schedule, of_tenant, shown, until};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JsonBody, SchedulePath};
use crate::gateway::Gateway;

/// Replaces what a schedule is. It goes on from now: what was due and is not dealt with is forgotten. A length of time that stays
/// the same is counted on from where it was.
#[utoipa::path(
    put,
    path = "/schedules/{id}",
    tag = "schedules",
    params(("id" = String, Path, description = "The schedule, by its id or its name")),
    request_body = ScheduleRequest,
    responses(
        (status = 200, description = "The schedule", body = Schedule),
        (status = 400, description = "A field is wrong, or the rule is never due or too often", body = ErrorBody),
        (status = 404, description = "No such schedule", body = ErrorBody),
        (status = 409, description = "There is another one with this name", body = ErrorBody),
    )
)]
pub(crate) async fn update(
    State(gateway): State<Gateway>,
    caller: Caller,
    SchedulePath(named): SchedulePath,
    JsonBody(mut request): JsonBody<ScheduleRequest>,
) -> Result<Json<Schedule>, ApiError> {
    let old = find(&gateway, &caller, &named)?.schedule;
    let id = old.id;
    request.name = request.name.filter(|name| !name.is_empty()).or(Some(old.name));
    let now = gateway.clock().now();
    let mut spec = Spec::read(request, now, now)?;
    if let (Timing::Every { seconds, anchor }, Timing::Every { seconds: before, anchor: counted_from }) =
        (&mut spec.timing, &old.timing)
        && seconds == before
    {
        *anchor = *counted_from;
    }
    let mut others = of_tenant(&gateway, &caller.tenant).into_iter();
    if others.any(|other| other.schedule.name == spec.name && other.schedule.id != id) {
        return Err(ApiError::conflict(format!("there is a schedule {} already", spec.name)));
    }
    let schedule = events::Schedule { owner: old.owner, ..schedule(&gateway, &caller, id, spec).await? };
    let event = EventId::new();
    gateway.publish(&caller, None, event, now, ScheduleUpdated { schedule }).await?;
    let state = until(&gateway, &caller.tenant, id, |state| state.is_none_or(|state| state.epoch == event));
    let state = state.await?.ok_or_else(|| no_schedule(id))?;
    Ok(Json(shown::shown(state, gateway.clock().now())))
}
