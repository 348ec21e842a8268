//! `POST /sandboxes/{id}/files/chmod`

use api_types::{ChmodRequest, Reply};
use axum::Json;
use axum::extract::State;
use transport::LinkOp;

use super::path::{ModeWish, mode_change, path};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JsonBody, SandboxPath};
use crate::gateway::Gateway;
use crate::routes::done;

/// Changes the permission bits of a file or a folder.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/files/chmod",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = ChmodRequest,
    responses(
        (status = 200, description = "They are changed", body = Reply),
        (status = 400, description = "No path, or a bad mode", body = ErrorBody),
        (status = 404, description = "No such sandbox or file", body = ErrorBody),
    )
)]
pub(crate) async fn chmod(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    JsonBody(request): JsonBody<ChmodRequest>,
) -> Result<Json<Reply>, ApiError> {
    let path = path(request.path, "path")?;
    let op = match mode_change(&request.mode.unwrap_or_default())? {
        ModeWish::Set(mode) => LinkOp::ChangeMode { path, mode },
        ModeWish::Change(change) => LinkOp::AdjustMode { path, change },
    };
    gateway.call(&caller, id, op).await?;
    Ok(done("chmod applied"))
}
