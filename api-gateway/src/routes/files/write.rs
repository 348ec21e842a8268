//! `POST /sandboxes/{id}/files`

use axum::Json;
use axum::extract::State;
use events::LinkOp;
use serde::Deserialize;
use utoipa::ToSchema;

use super::path::{mode_or_default, path};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{FileJsonBody, SandboxPath};
use crate::gateway::{Gateway, link_failed};
use crate::routes::Status;

/// A file that is text.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WriteRequest {
    /// Absolute, or relative to /workspace. Missing folders are made.
    #[schema(required)]
    pub path: Option<String>,
    /// The whole content.
    pub content: Option<String>,
    /// Permission bits in octal; `0644` by default.
    pub mode: Option<String>,
}

/// Writes a text file whole, and replaces the old one at once. For bytes and for large files use the upload (PUT).
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/files",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = WriteRequest,
    responses(
        (status = 200, description = "It is written", body = Status),
        (status = 400, description = "No path, or a bad mode", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
        (status = 413, description = "The body is over the limit, or the disk is full", body = ErrorBody),
    )
)]
pub(crate) async fn write(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    FileJsonBody(request): FileJsonBody<WriteRequest>,
) -> Result<Json<Status>, ApiError> {
    let path = path(request.path, "path")?;
    let mode = mode_or_default(request.mode.as_deref())?;
    let content = request.content.unwrap_or_default();
    let mut file = gateway.open(&caller, id, LinkOp::WriteFile { path, mode }).await?;
    file.write(content.into()).await.map_err(link_failed)?;
    file.finish().await.map_err(link_failed)?;
    Ok(Status::json("written"))
}
