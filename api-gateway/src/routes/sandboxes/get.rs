//! `GET /sandboxes/{id}`

use axum::Json;
use axum::extract::State;

use super::Sandbox;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::SandboxPath;
use crate::gateway::Gateway;

/// One sandbox. A destroyed one does not exist any more; one that could not be made is there with state `error`.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}",
    tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The sandbox", body = Sandbox),
        (status = 404, description = "No such sandbox", body = ErrorBody),
    )
)]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
) -> Result<Json<Sandbox>, ApiError> {
    let state = gateway.sandbox(&caller.tenant, id).await?;
    Ok(Json(Sandbox::of(&state, &gateway)))
}
