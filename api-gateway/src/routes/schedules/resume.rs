//! `POST /schedules/{id}/resume`

use api_types::Schedule;
use axum::Json;
use axum::extract::State;

use super::set_paused;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::SchedulePath;
use crate::gateway::Gateway;

/// Goes on with the next time that it is due. What would have been due in between is not made up for.
#[utoipa::path(
    post,
    path = "/schedules/{id}/resume",
    tag = "schedules",
    params(("id" = String, Path, description = "The schedule, by its id or its name")),
    responses(
        (status = 200, description = "The schedule; also when it is not paused already", body = Schedule),
        (status = 404, description = "No such schedule", body = ErrorBody),
    )
)]
pub(crate) async fn resume(
    State(gateway): State<Gateway>,
    caller: Caller,
    SchedulePath(named): SchedulePath,
) -> Result<Json<Schedule>, ApiError> {
    set_paused(&gateway, &caller, &named, false).await
}
