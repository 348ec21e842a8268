//! `GET /jobs/{id}/artifacts`

use api_types::{JobArtifact, JobArtifacts};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use events::JobState;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{place, store};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JobPath, QueryOf};
use crate::gateway::Gateway;
use crate::routes::jobs::find;
use crate::stream::archive::archive;
use crate::stream::raw;

/// In which form.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ArtifactsQuery {
    /// `tar`: all of them, as one archive.
    pub archive: Option<String>,
}

/// The files that a job left, by path; or all of them as one archive.
///
/// They are those of its last attempt. An archive that breaks off (no final chunk) is not whole.
#[utoipa::path(
    get,
    path = "/jobs/{id}/artifacts",
    tag = "jobs",
    params(("id" = String, Path, description = "The job"), ArtifactsQuery),
    responses(
        (status = 200, description = "The list, or the archive", content(
            (JobArtifacts = "application/json"),
            (String = "application/x-tar"),
        )),
        (status = 400, description = "Another form of archive", body = ErrorBody),
        (status = 404, description = "No such job", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    JobPath(id): JobPath,
    QueryOf(query): QueryOf<ArtifactsQuery>,
) -> Result<Response, ApiError> {
    let whole = match query.archive.as_deref() {
        None => false,
        Some("tar") => true,
        Some(_) => return Err(ApiError::bad_request("archive must be tar")),
    };
    let mut job = find(&gateway, &caller, id).await?;
    job.artifacts.sort_unstable_by(|one, other| one.path.cmp(&other.path));
    if whole {
        return tar(&gateway, job);
    }
    let artifacts = job.artifacts.into_iter().map(|artifact| JobArtifact {
        path: artifact.path,
        size: artifact.object.size,
        sha256: artifact.object.sha256.to_string(),
        mode: format!("{:04o}", artifact.mode & 0o777),
    });
    Ok(Json(JobArtifacts { artifacts: artifacts.collect() }).into_response())
}

fn tar(gateway: &Gateway, job: JobState) -> Result<Response, ApiError> {
    let store = store(gateway)?.clone();
    // One job is one archive, byte for byte, whenever it is asked for.
    let time = job.ended_at().unwrap_or(job.submitted_at).timestamp();
    let name = format!("attachment; filename=\"{}.tar\"", job.id);
    let archive = archive(store, place(&job), job.artifacts, u64::try_from(time).unwrap_or(0));
    let mut response = raw::respond(archive);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    if let Ok(name) = HeaderValue::from_str(&name) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}
