//! `GET /sandboxes/{id}/files/stat`

use api_types::FileInfo;
use axum::Json;
use axum::extract::State;
use transport::{LinkOp, LinkValue};

use super::{PathQuery, path::path, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::{Gateway, unexpected_answer};

/// One entry.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/files/stat",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox"), PathQuery),
    responses(
        (status = 200, description = "The entry", body = FileInfo),
        (status = 400, description = "No path", body = ErrorBody),
        (status = 404, description = "No such sandbox or file", body = ErrorBody),
    )
)]
pub(crate) async fn stat(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<PathQuery>,
) -> Result<Json<FileInfo>, ApiError> {
    let path = path(query.path, "path")?;
    match gateway.call(&caller, id, LinkOp::StatFile { path }).await? {
        LinkValue::File(entry) => Ok(Json(shown(entry))),
        LinkValue::Done | LinkValue::Stats(_) | LinkValue::StillWanted => Err(unexpected_answer()),
    }
}
