//! `GET /schedules/{id}`

use api_types::Schedule;
use axum::Json;
use axum::extract::State;

use super::{find, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::SchedulePath;
use crate::gateway::Gateway;

/// One schedule: where it stands, and when it is due next.
#[utoipa::path(
    get,
    path = "/schedules/{id}",
    tag = "schedules",
    params(("id" = String, Path, description = "The schedule, by its id or its name")),
    responses(
        (status = 200, description = "The schedule", body = Schedule),
        (status = 404, description = "No such schedule", body = ErrorBody),
    )
)]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    SchedulePath(named): SchedulePath,
) -> Result<Json<Schedule>, ApiError> {
    let state = find(&gateway, &caller, &named)?;
    Ok(Json(shown::shown(state, gateway.clock().now())))
}
