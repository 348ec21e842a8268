//! `GET /sandboxes/{id}/files/glob`

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use transport::LinkOp;
use utoipa::IntoParams;

use super::listing;
use super::path::path;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::Gateway;

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
        (status = 413, description = "More than 100,000 paths match, or a million had to be looked at", body = ErrorBody),
    )
)]
pub(crate) async fn glob(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<GlobQuery>,
) -> Result<Response, ApiError> {
    let pattern = path(query.pattern, "pattern")?;
    let paths = gateway.open(&caller, id, LinkOp::Glob { pattern }).await?;
    listing::respond::<String, String>(paths, std::convert::identity).await
}
