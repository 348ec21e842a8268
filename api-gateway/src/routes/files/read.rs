//! `GET /sandboxes/{id}/files`

use std::io;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::response::Response;
use events::SandboxId;
use transport::{ByteRange, FaultCode, FileEntry, LinkError, LinkOp, LinkValue};

use super::version::Version;
use super::{PathQuery, path::path};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::{Gateway, OpenCall, link_failed, unexpected_answer};
use crate::routes::range;
use crate::stream::raw;

/// The content of a file, as raw bytes, of any size.
///
/// `Range: bytes=` gives a part (206), read from where it begins. With `If-Range` it is a part of the version that the client
/// names by its `ETag` or `Last-Modified`, else the whole of what is there now (200). A file without a size (`/proc`) is always
/// whole.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/files",
    tag = "files",
    params(
        ("id" = String, Path, description = "The sandbox"),
        PathQuery,
        ("Range" = Option<String>, Header, description = "One range of bytes"),
        ("If-Range" = Option<String>, Header, description = "The ETag or Last-Modified that the range is of"),
    ),
    responses(
        (status = 200, description = "The bytes", body = String, content_type = "application/octet-stream"),
        (status = 206, description = "The range", body = String, content_type = "application/octet-stream"),
        (status = 400, description = "No path, or not a file", body = ErrorBody),
        (status = 404, description = "No such sandbox or file", body = ErrorBody),
        (status = 416, description = "The range begins past the end", body = ErrorBody),
    )
)]
pub(crate) async fn read(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<PathQuery>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = path(query.path, "path")?;
    // A range of what HEAD would not send means nothing.
    if let Some(asked) = range::read(&headers).filter(|_| method == Method::GET)
        && let Some(part) = part(&gateway, &caller, id, &path, asked, &headers).await?
    {
        return Ok(part);
    }
    let file = gateway.open(&caller, id, LinkOp::ReadFile { path }).await?;
    let version = Version::of(entry(&file.head)?, gateway.clock().now());
    // The length is not promised: the file may grow or shrink while it is read, and some (/proc) have none.
    Ok(respond(file, &version))
}

/// A part of a file; `None` where the whole is to be sent.
async fn part(
    gateway: &Gateway,
    caller: &Caller,
    id: SandboxId,
    path: &str,
    asked: ByteRange,
    headers: &HeaderMap,
) -> Result<Option<Response>, ApiError> {
    let version = |entry: &FileEntry| Version::of(entry, gateway.clock().now());
    if headers.contains_key(header::IF_RANGE) {
        // Before anything is read that is not wanted.
        let found = gateway.call(caller, id, LinkOp::StatFile { path: path.to_owned() }).await?;
        if !version(entry(&found)?).fits(headers) {
            return Ok(None);
        }
    }
    let op = LinkOp::ReadFilePart { path: path.to_owned(), range: asked };
    let file = match gateway.try_open(caller, id, op).await? {
        Err(LinkError::Refused(fault)) if fault.code == FaultCode::Unsupported => return Ok(None),
        opened => opened.map_err(link_failed)?,
    };
    let entry = entry(&file.head)?;
    let (size, version) = (entry.size, version(entry));
    if !version.fits(headers) {
        return Ok(None);
    }
    let Some(range) = asked.of(size) else { return Ok(Some(range::unsatisfiable(size))) };
    let mut response = respond(file, &version);
    // A file that becomes shorter breaks the connection.
    response.headers_mut().insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    range::partial(&mut response, &range, &size.to_string());
    Ok(Some(response))
}

fn entry(found: &LinkValue) -> Result<&FileEntry, ApiError> {
    match found {
        LinkValue::File(entry) => Ok(entry),
        LinkValue::Done | LinkValue::Stats(_) | LinkValue::StillWanted => Err(unexpected_answer()),
    }
}

fn respond(file: OpenCall, version: &Version) -> Response {
    let mut response = raw::respond(futures::stream::try_unfold(file, |mut file: OpenCall| async move {
        let bytes = file.read().await.map_err(io::Error::other)?;
        Ok(bytes.map(|bytes| (bytes, file)))
    }));
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    version.write_to(headers);
    response
}
