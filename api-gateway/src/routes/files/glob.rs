//! `GET /sandboxes/{id}/files/glob`

use axum::Json;
use axum::extract::State;
use events::{LinkOp, LinkValue};
use serde::Deserialize;
use utoipa::IntoParams;

use super::path::path;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::{Gateway, unexpected_answer};

/// Which files.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct GlobQuery {
    /// `/workspace/**/*.py`; relative ones begin in /workspace.
    #[param(required)]
    pub pattern: Option<String>,
}

/// The paths that match a pattern, sorted. An empty array where none does.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/files/glob",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox"), GlobQuery),
    responses(
        (status = 200, description = "The paths", body = [String]),
        (status = 400, description = "No pattern, or a bad one", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
    )
)]
pub(crate) async fn glob(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<GlobQuery>,
) -> Result<Json<Vec<String>>, ApiError> {
    let pattern = path(query.pattern, "pattern")?;
    match gateway.call(&caller, id, LinkOp::Glob { pattern }).await? {
        LinkValue::Paths(paths) => Ok(Json(paths)),
        LinkValue::Done | LinkValue::File(_) | LinkValue::Files(_) | LinkValue::Stats(_) => {
            Err(unexpected_answer())
        }
    }
}
