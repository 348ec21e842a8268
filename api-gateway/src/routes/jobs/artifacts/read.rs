//! `GET /jobs/{id}/artifacts/{path}`

use std::io;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::Response;
use futures::TryStreamExt as _;

use super::{named, place, store, unread};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::ArtifactPath;
use crate::gateway::Gateway;
use crate::routes::jobs::find;
use crate::routes::range;
use crate::stream::raw;

/// One artifact of a job, as raw bytes, also after its sandbox is gone.
///
/// `Range: bytes=` gives a part (206). The `ETag` is the SHA-256 of the whole: with `If-Range` it is a part of that version, else the
/// whole of what is there (200). An answer whose bytes are not those of the record breaks off.
#[utoipa::path(
    get,
    path = "/jobs/{id}/artifacts/{*path}",
    tag = "jobs",
    params(
        ("id" = String, Path, description = "The job"),
        ("path" = String, Path, description = "The path of the artifact, as it is listed; its slashes may be there as they are"),
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-Range" = Option<String>, Header, description = "The ETag that the range is of"),
    ),
    responses(
        (status = 200, description = "The bytes", body = String, content_type = "application/octet-stream"),
        (status = 206, description = "The range", body = String, content_type = "application/octet-stream"),
        (status = 404, description = "No such job or artifact", body = ErrorBody),
        (status = 410, description = "It is not kept any more", body = ErrorBody),
        (status = 416, description = "The range begins past the end", body = ErrorBody),
    )
)]
pub(crate) async fn read(
    State(gateway): State<Gateway>,
    caller: Caller,
    ArtifactPath(id, path): ArtifactPath,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let job = find(&gateway, &caller, id).await?;
    let artifact = named(&job, &path)?;
    let (size, key) = (artifact.object.size, place(&job).key(artifact.object.sha256));
    let version = format!("\"{}\"", artifact.object.sha256);
    let fits = headers.get(header::IF_RANGE).is_none_or(|named| named.as_bytes() == version.as_bytes());
    // A range of what HEAD would not send means nothing.
    let asked = range::read(&headers).filter(|_| method == Method::GET && fits);
    let part = match asked {
        Some(asked) => match asked.of(size) {
            Some(part) => Some(part),
            None => return Ok(range::unsatisfiable(size)),
        },
        None => None,
    };
    let object = store(&gateway)?.get(&key, part.clone()).await.map_err(unread)?;
    if object.size != size {
        return Err(ApiError::internal("an artifact has another size than the record says"));
    }
    let length = object.range.end - object.range.start;
    let mut response = raw::respond(object.contents.map_err(io::Error::other));
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, length.into());
    range::set(headers, header::ETAG, &version);
    if let Some(part) = part {
        range::partial(&mut response, &part, &size.to_string());
    }
    Ok(response)
}
