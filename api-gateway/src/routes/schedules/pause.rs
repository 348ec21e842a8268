//! `POST /schedules/{id}/pause`

use api_types::Schedule;
use axum::Json;
use axum::extract::State;

use super::set_paused;
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
    set_paused(&gateway, &caller, &named, true).await
}
