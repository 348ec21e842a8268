//! `PUT /sandboxes/{id}/files`

use api_types::Reply;
use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use http_body_util::BodyExt;
use serde::Deserialize;
use transport::LinkOp;
use utoipa::IntoParams;

use super::path::{mode_or_kept, path};
use crate::auth::Caller;
use crate::body::{declared_length, incomplete, plain};
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::{Gateway, link_failed};
use crate::routes::done;

/// Where to.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// Absolute, or relative to /workspace. Missing folders are made.
    #[param(required)]
    pub path: Option<String>,
    /// Permission bits in octal. By default a file that is there keeps its own, and a new one gets `0644`.
    pub mode: Option<String>,
}

/// Why an upload was given up. The old file is still there.
#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error("the upload is over the limit of {0} bytes")]
    TooLarge(u64),
    #[error(transparent)]
    Link(#[from] transport::LinkError),
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge(_) => Self::too_large(error.to_string()),
            UploadError::Link(error) => link_failed(error),
        }
    }
}

/// Writes a file from the raw body, of any size and as it comes, and replaces the old one when all has come.
#[utoipa::path(
    put,
    path = "/sandboxes/{id}/files",
    tag = "files",
    params(("id" = String, Path, description = "The sandbox"), UploadQuery),
    request_body(content = String, content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "It is written", body = Reply),
        (status = 400, description = "No path, no body, a bad mode, or the body broke off", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
        (status = 408, description = "The client sent nothing for too long", body = ErrorBody),
        (status = 409, description = "The file is in use", body = ErrorBody),
        (status = 413, description = "The body is over the limit, or the disk is full", body = ErrorBody),
        (status = 415, description = "A body that is compressed or multipart", body = ErrorBody),
    )
)]
pub(crate) async fn upload(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<UploadQuery>,
    request: Request,
) -> Result<Json<Reply>, ApiError> {
    let path = path(query.path, "path")?;
    let (mode, keep_mode) = mode_or_kept(query.mode.as_deref())?;
    plain(request.headers())?;
    let length = declared_length(request.headers());
    let limit = gateway.config().max_upload_bytes.unwrap_or(u64::MAX);
    if length.is_some_and(|length| length > limit) {
        return Err(UploadError::TooLarge(limit).into());
    }
    let mut file = gateway.open(&caller, id, LinkOp::WriteFile { path, mode, keep_mode }).await?;
    let mut body: Body = request.into_body();
    let mut written: u64 = 0;
    // Leaving early drops the link, which tells the executor to forget what it has.
    while let Some(frame) = body.frame().await {
        let Ok(bytes) = frame.map_err(|error| incomplete(&error))?.into_data() else {
            continue;
        };
        written += bytes.len() as u64;
        if written > limit {
            return Err(UploadError::TooLarge(limit).into());
        }
        file.write(bytes).await.map_err(UploadError::from)?;
    }
    file.finish().await.map_err(UploadError::from)?;
    Ok(done("written"))
}
