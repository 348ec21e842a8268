//! `GET /sandboxes/{id}/files/list`

use api_types::FileInfo;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use transport::{FaultCode, FileEntry, LinkError, LinkOp};
use utoipa::IntoParams;

use super::{listing, path::path, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::{Gateway, link_failed};
use crate::leniency::Leniency;

/// Which folder.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Absolute, or relative to /workspace; `/` by default.
    pub path: Option<String>,
}

/// The entries of a folder, by name. One that is not there has none; with `Prefer: handling=strict` it is 404.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/files/list",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox"), ListQuery),
    responses(
        (status = 200, description = "The entries", body = [FileInfo]),
        (status = 400, description = "Not a folder", body = ErrorBody),
        (status = 404, description = "No such sandbox; or no such folder, and `Prefer: handling=strict`", body = ErrorBody),
        (status = 413, description = "More than 100,000 entries", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<ListQuery>,
    leniency: Leniency,
) -> Result<Response, ApiError> {
    let path =
        path(Some(query.path.filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned())), "path")?;
    match gateway.try_open(&caller, id, LinkOp::ListFiles { path }).await? {
        Ok(entries) => listing::respond::<FileEntry, FileInfo>(entries, shown).await,
        Err(LinkError::Refused(fault)) if leniency.is_lenient() && fault.code == FaultCode::NotFound => {
            Ok(Json::<[FileInfo; 0]>([]).into_response())
        }
        Err(error) => Err(link_failed(error)),
    }
}
