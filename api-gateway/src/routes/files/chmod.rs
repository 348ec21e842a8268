//! `POST /sandboxes/{id}/files/chmod`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use transport::LinkOp;
use utoipa::ToSchema;

use super::path::{ModeWish, mode_change, path};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JsonBody, SandboxPath};
use crate::gateway::Gateway;
use crate::routes::Status;

/// Which permissions.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ChmodRequest {
    /// Absolute, or relative to /workspace.
    #[schema(required)]
    pub path: Option<String>,
    /// Permission bits in octal, or a change of them as `chmod` takes it: `u+x`, `a-w,go=`.
    #[schema(required, example = "0755")]
    pub mode: Option<String>,
}

/// Changes the permission bits of a file or a folder.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/files/chmod",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = ChmodRequest,
    responses(
        (status = 200, description = "They are changed", body = Status),
        (status = 400, description = "No path, or a bad mode", body = ErrorBody),
        (status = 404, description = "No such sandbox or file", body = ErrorBody),
    )
)]
pub(crate) async fn chmod(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    JsonBody(request): JsonBody<ChmodRequest>,
) -> Result<Json<Status>, ApiError> {
    let path = path(request.path, "path")?;
    let op = match mode_change(&request.mode.unwrap_or_default())? {
        ModeWish::Set(mode) => LinkOp::ChangeMode { path, mode },
        ModeWish::Change(change) => LinkOp::AdjustMode { path, change },
    };
    gateway.call(&caller, id, op).await?;
    Ok(Status::json("chmod applied"))
}
