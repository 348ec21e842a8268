//! `GET /sandboxes/{id}/files`

use std::io;

use axum::extract::State;
use axum::response::Response;
use events::LinkOp;

use super::{PathQuery, path::path};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::{Gateway, OpenCall};
use crate::stream::raw;

/// The content of a file, as raw bytes, of any size.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/files",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox"), PathQuery),
    responses(
        (status = 200, description = "The bytes", body = String, content_type = "application/octet-stream"),
        (status = 400, description = "No path, or not a file", body = ErrorBody),
        (status = 404, description = "No such sandbox or file", body = ErrorBody),
    )
)]
pub(crate) async fn read(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<PathQuery>,
) -> Result<Response, ApiError> {
    let path = path(query.path, "path")?;
    let file = gateway.open(&caller, id, LinkOp::ReadFile { path }).await?;
    // The length is not promised: the file may grow or shrink while it is read, and some (/proc) have none.
    Ok(raw::respond(futures::stream::try_unfold(file, |mut file: OpenCall| async move {
        let bytes = file.read().await.map_err(io::Error::other)?;
        Ok(bytes.map(|bytes| (bytes, file)))
    })))
}
