//! `DELETE /schedules/{id}`

use api_types::Reply;
use axum::Json;
use axum::extract::State;
use events::{EventId, ScheduleDeleted};

use super::{find, until};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::SchedulePath;
use crate::gateway::Gateway;
use crate::routes::done;

/// Deletes a schedule. Jobs that it has submitted stay; those that wait for one before them are not submitted.
#[utoipa::path(
    delete,
    path = "/schedules/{id}",
    tag = "schedules",
    params(("id" = String, Path, description = "The schedule, by its id or its name")),
    responses(
        (status = 200, description = "It is deleted", body = Reply),
        (status = 404, description = "No such schedule", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    caller: Caller,
    SchedulePath(named): SchedulePath,
) -> Result<Json<Reply>, ApiError> {
    let id = find(&gateway, &caller, &named)?.schedule.id;
    let deleted = ScheduleDeleted { schedule: id };
    gateway.publish(&caller, None, EventId::new(), gateway.clock().now(), deleted).await?;
    until(&gateway, &caller.tenant, id, |state| state.is_none()).await?;
    Ok(done("deleted"))
}
