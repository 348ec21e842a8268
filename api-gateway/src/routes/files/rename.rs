//! `POST /sandboxes/{id}/files/move`

use api_types::{MoveRequest, Reply};
use axum::Json;
use axum::extract::State;
use transport::LinkOp;

use super::path::path;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JsonBody, SandboxPath};
use crate::gateway::Gateway;
use crate::routes::done;

/// Moves or renames a file or a folder.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/files/move",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = MoveRequest,
    responses(
        (status = 200, description = "It is moved", body = Reply),
        (status = 400, description = "A path is missing", body = ErrorBody),
        (status = 404, description = "No such sandbox or file", body = ErrorBody),
    )
)]
pub(crate) async fn rename(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    JsonBody(request): JsonBody<MoveRequest>,
) -> Result<Json<Reply>, ApiError> {
    let from = path(request.old_path, "old_path")?;
    let to = path(request.new_path, "new_path")?;
    gateway.call(&caller, id, LinkOp::MoveFile { from, to }).await?;
    Ok(done("moved"))
}
