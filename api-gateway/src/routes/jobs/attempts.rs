//! `GET /jobs/{id}/attempts`

use api_types::AttemptList;
use axum::Json;
use axum::extract::State;

use super::{find, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::JobPath;
use crate::gateway::Gateway;

/// The attempts of a job, the first first.
#[utoipa::path(
    get,
    path = "/jobs/{id}/attempts",
    tag = "jobs",
    params(("id" = String, Path, description = "The job")),
    responses(
        (status = 200, description = "The attempts", body = AttemptList),
        (status = 404, description = "No such job", body = ErrorBody),
    )
)]
pub(crate) async fn attempts(
    State(gateway): State<Gateway>,
    caller: Caller,
    JobPath(id): JobPath,
) -> Result<Json<AttemptList>, ApiError> {
    let state = find(&gateway, &caller, id).await?;
    Ok(Json(AttemptList { attempts: shown::attempts(&state) }))
}
