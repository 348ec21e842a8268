//! `POST /sandboxes/{id}/files/move`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use transport::LinkOp;
use utoipa::ToSchema;

use super::path::path;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JsonBody, SandboxPath};
use crate::gateway::Gateway;
use crate::routes::Status;

/// From where to where.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct MoveRequest {
    /// The path that is there.
    #[schema(required)]
    pub old_path: Option<String>,
    /// The path that it shall have. Missing folders are made.
    #[schema(required)]
    pub new_path: Option<String>,
}

/// Moves or renames a file or a folder.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/files/move",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = MoveRequest,
    responses(
        (status = 200, description = "It is moved", body = Status),
        (status = 400, description = "A path is missing", body = ErrorBody),
        (status = 404, description = "No such sandbox or file", body = ErrorBody),
    )
)]
pub(crate) async fn rename(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    JsonBody(request): JsonBody<MoveRequest>,
) -> Result<Json<Status>, ApiError> {
    let from = path(request.old_path, "old_path")?;
    let to = path(request.new_path, "new_path")?;
    gateway.call(&caller, id, LinkOp::MoveFile { from, to }).await?;
    Ok(Status::json("moved"))
}
