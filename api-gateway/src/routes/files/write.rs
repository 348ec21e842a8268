//! `POST /sandboxes/{id}/files`

use api_types::{Reply, WriteRequest};
use axum::Json;
use axum::extract::State;
use transport::LinkOp;

use super::path::{mode_or_kept, path};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{FileJsonBody, SandboxPath};
use crate::gateway::{Gateway, link_failed};
use crate::routes::done;

/// Writes a text file whole, and replaces the old one at once. For bytes and for large files use the upload (PUT).
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/files",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = WriteRequest,
    responses(
        (status = 200, description = "It is written", body = Reply),
        (status = 400, description = "No path, no content, or a bad mode", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
        (status = 409, description = "The file is in use", body = ErrorBody),
        (status = 413, description = "The body is over the limit, or the disk is full", body = ErrorBody),
        (status = 415, description = "A body that is compressed or multipart", body = ErrorBody),
    )
)]
pub(crate) async fn write(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    FileJsonBody(request): FileJsonBody<WriteRequest>,
) -> Result<Json<Reply>, ApiError> {
    let path = path(request.path, "path")?;
    let (mode, keep_mode) = mode_or_kept(request.mode.as_deref())?;
    // Not taken for an empty one: a misspelt name would empty the file.
    let missing = "content is missing: send \"content\": \"\" for an empty file";
    let content = request.content.ok_or_else(|| ApiError::bad_request(missing))?;
    let mut file = gateway.open(&caller, id, LinkOp::WriteFile { path, mode, keep_mode }).await?;
    file.write(content.0.into()).await.map_err(link_failed)?;
    file.finish().await.map_err(link_failed)?;
    Ok(done("written"))
}
