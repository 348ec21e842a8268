//! `POST /schedules/{id}/pause`

use api_types::Schedule;
use axum::Json;
use axum::extract::State;
use events::{EventId, SchedulePaused};

use super::{find, no_schedule, shown, until};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::SchedulePath;
use crate::gateway::Gateway;

/// Has nothing be due until it is resumed. Jobs that wait or run are left alone.
#[utoipa::path(
    post,
    path = "/schedules/{id}/pause",
    tag = "schedules",
    params(("id" = String, Path, description = "The schedule, by its id or its name")),
    responses(
        (status = 200, description = "The schedule; also when it is paused already", body = Schedule),
        (status = 404, description = "No such schedule", body = ErrorBody),
    )
)]
pub(crate) async fn pause(
    State(gateway): State<Gateway>,
    caller: Caller,
    SchedulePath(named): SchedulePath,
) -> Result<Json<Schedule>, ApiError> {
    let mut state = find(&gateway, &caller, &named)?;
    let id = state.schedule.id;
    let now = gateway.clock().now();
    if state.paused_at.is_none() {
        let said = SchedulePaused { schedule: id };
        gateway.publish(&caller, None, EventId::new(), now, said).await?;
        let is_said =
            until(&gateway, &caller.tenant, id, |state| state.is_none_or(|state| state.paused_at.is_some()));
        state = is_said.await?.ok_or_else(|| no_schedule(id))?;
    }
    Ok(Json(shown::shown(state, now)))
}
