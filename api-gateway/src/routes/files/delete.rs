//! `DELETE /sandboxes/{id}/files`

use api_types::Reply;
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use transport::LinkOp;
use utoipa::IntoParams;

use super::{is_missing, path::path};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::{Gateway, link_failed};
use crate::leniency::Leniency;
use crate::routes::done;

/// What to delete.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Absolute, or relative to /workspace.
    #[param(required)]
    pub path: Option<String>,
    /// `true`: a folder goes with all that is in it.
    pub recursive: Option<String>,
}

/// Deletes a file or a folder. One that is not there is a success too; with `Prefer: handling=strict` it is 404.
#[utoipa::path(
    delete,
    path = "/sandboxes/{id}/files",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox"), DeleteQuery),
    responses(
        (status = 200, description = "It is deleted", body = Reply),
        (status = 400, description = "No path", body = ErrorBody),
        (status = 404, description = "No such sandbox; or no such file, and `Prefer: handling=strict`", body = ErrorBody),
        (status = 409, description = "The folder is not empty", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<DeleteQuery>,
    leniency: Leniency,
) -> Result<Json<Reply>, ApiError> {
    let path = path(query.path, "path")?;
    // To the letter: what deletes whole folders must not be guessed.
    let recursive = query.recursive.as_deref() == Some("true");
    match gateway.try_call(&caller, id, LinkOp::DeleteFile { path, recursive }).await? {
        Ok(_) => {}
        Err(error) if leniency.is_lenient() && is_missing(&error) => {}
        Err(error) => return Err(link_failed(error)),
    }
    Ok(done("deleted"))
}
