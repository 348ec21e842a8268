//! `GET /execs/{id}`

use api_types::Exec;
use axum::Json;
use axum::extract::State;

use super::find;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::shown::shown;
use crate::extract::ExecPath;
use crate::gateway::Gateway;

/// One exec, running or ended, also after its sandbox is gone.
#[utoipa::path(
    get,
    path = "/execs/{id}",
    tag = "execs",
    params(("id" = String, Path, description = "The exec")),
    responses(
        (status = 200, description = "The exec", body = Exec),
        (status = 404, description = "No such exec, or it has not started yet", body = ErrorBody),
    )
)]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
) -> Result<Json<Exec>, ApiError> {
    Ok(Json(shown(&*find(&gateway, &caller, id).await?)))
}
