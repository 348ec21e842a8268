//! `GET /execs/{id}/output`

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use api_types::Word as _;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use events::{ExecEnd, ExecId, ExecState, OutputStream};
use feed::{OutputItem, OutputReader};
use futures::Stream;
use record::{OutputChunk, StoreError};
use serde::Deserialize;
use transport::ByteRange;
use utoipa::IntoParams;

use super::find;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::shown::state_name;
use crate::exec::start::read;
use crate::extract::{ExecPath, QueryOf};
use crate::gateway::Gateway;
use crate::routes::range::{self, unsatisfiable};
use crate::stream::raw;

/// How much is read from the record at once, in bytes.
const PAGE_BYTES: usize = 1 << 20;

/// Which bytes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OutputQuery {
    /// `stdout` (the default), `stderr`, or `both` in the order of the record; that has no offsets.
    pub stream: Option<String>,
    /// The first byte, counted from 0.
    pub offset: Option<String>,
    /// `true`: go on with what is written from now on, until the exec ends.
    pub follow: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// `None`: both.
    stream: Option<OutputStream>,
    offset: u64,
    follow: bool,
    range: Option<ByteRange>,
}

impl Wanted {
    /// Which stream; `None`: both.
    pub(crate) const fn stream(&self) -> Option<OutputStream> {
        self.stream
    }

    /// Where it begins.
    pub(crate) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(crate) const fn follows(&self) -> bool {
        self.follow
    }

    /// Whether it begins or ends somewhere in between.
    pub(crate) const fn is_partial(&self) -> bool {
        self.offset > 0 || self.range.is_some()
    }
}

impl OutputQuery {
    pub(crate) fn read(&self, range: Option<ByteRange>) -> Result<Wanted, ApiError> {
        let wanted = Wanted {
            stream: match self.stream.as_deref() {
                None | Some("stdout") => Some(OutputStream::Stdout),
                Some("stderr") => Some(OutputStream::Stderr),
                Some("both") => None,
                Some(_) => return Err(ApiError::bad_request("stream must be stdout, stderr or both")),
            },
            offset: offset(self.offset.as_deref(), "offset")?,
            follow: flag(self.follow.as_deref(), "follow")?,
            range,
        };
        if wanted.stream.is_none() && (self.offset.is_some() || range.is_some()) {
            return Err(ApiError::bad_request("offsets count the bytes of one stream: name it"));
        }
        if range.is_some() && (self.offset.is_some() || wanted.follow) {
            return Err(ApiError::bad_request("Range goes without offset and without follow"));
        }
        Ok(wanted)
    }
}

/// A number of bytes.
pub(crate) fn offset(text: Option<&str>, name: &'static str) -> Result<u64, ApiError> {
    let Some(text) = text else { return Ok(0) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i64>() {
        // 63 bits are what every database counts in.
        Ok(offset) if digits => Ok(offset.unsigned_abs()),
        _ => Err(ApiError::bad_request(format!("{name} must be a number of bytes"))),
    }
}

/// Yes or no.
pub(crate) fn flag(text: Option<&str>, name: &'static str) -> Result<bool, ApiError> {
    match text {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(ApiError::bad_request(format!("{name} must be true or false"))),
    }
}

/// The output of an exec as raw bytes, from any offset on, also after its sandbox is gone. With `follow` it goes on with
/// what comes, until the exec ends.
///
/// `Range: bytes=` gives a part (206); the total is `*` while the exec runs. `X-Exec-State` and `X-Exec-Exit-Code` say how
/// it stands, `X-Output-Bytes` how much is recorded, `X-Next-Offset` where to go on from.
#[utoipa::path(
    get,
    path = "/execs/{id}/output",
    tag = "execs",
    params(
        ("id" = String, Path, description = "The exec"),
        OutputQuery,
        ("Range" = Option<String>, Header, description = "One range of bytes"),
    ),
    responses(
        (status = 200, description = "The bytes", body = String, content_type = "application/octet-stream"),
        (status = 206, description = "The range", body = String, content_type = "application/octet-stream"),
        (status = 400, description = "No such stream, or no offset", body = ErrorBody),
        (status = 404, description = "No such exec", body = ErrorBody),
        (status = 410, description = "These bytes are not kept any more; `X-Next-Offset` says where output goes on", body = ErrorBody),
        (status = 416, description = "The range begins past the end", body = ErrorBody),
    )
)]
pub(crate) async fn output(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    QueryOf(query): QueryOf<OutputQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wanted = query.read(range::read(&headers))?;
    let state = find(&gateway, &caller, id).await?;
    respond(gateway, &state, &wanted).await
}

/// The output of an exec that was found.
pub(crate) async fn respond(
    gateway: Gateway,
    state: &ExecState,
    wanted: &Wanted,
) -> Result<Response, ApiError> {
    let id = state.id;
    let mut response = match wanted.stream {
        Some(stream) if !wanted.follow || state.is_over() => part(&gateway, state, stream, wanted).await?,
        stream => {
            // The other stream is of no interest, from wherever it would begin.
            let skip = i64::MAX.unsigned_abs();
            let (stdout, stderr) = match stream {
                None => (0, 0),
                Some(OutputStream::Stdout) => (wanted.offset, skip),
                Some(OutputStream::Stderr) => (skip, wanted.offset),
            };
            if let Some(stream) = stream {
                // Before the answer begins, so that it can still be another one.
                first_page(&gateway, id, stream, wanted.offset, 1).await?;
            }
            let reader = read(&gateway, id, stdout, stderr).await?;
            raw::respond(live(gateway, reader, stream, wanted.follow))
        }
    };
    describe(response.headers_mut(), state, wanted.stream);
    Ok(response)
}

/// What is recorded now, from an offset on or in a range.
async fn part(
    gateway: &Gateway,
    state: &ExecState,
    stream: OutputStream,
    wanted: &Wanted,
) -> Result<Response, ApiError> {
    let total = state.recorded(stream);
    let range = match wanted.range {
        None => wanted.offset.min(total)..total,
        Some(asked) => match asked.of(total) {
            Some(range) => range,
            None => return Ok(unsatisfiable(total)),
        },
    };
    let want = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(PAGE_BYTES);
    let page = first_page(gateway, state.id, stream, range.start, want).await?;
    let bytes = recorded(gateway.clone(), state.id, stream, range.clone(), page.into());
    let mut response = raw::respond(bytes);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, (range.end - range.start).into());
    headers.insert("x-next-offset", range.end.into());
    if wanted.range.is_some() {
        let all = if state.is_over() { total.to_string() } else { "*".to_owned() };
        range::partial(&mut response, &range, &all);
    }
    Ok(response)
}

/// Says how the exec stands.
fn describe(headers: &mut HeaderMap, state: &ExecState, stream: Option<OutputStream>) {
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert("x-exec-state", HeaderValue::from_static(state_name(state).as_str()));
    if let Some(code) = state.end.as_ref().and_then(ExecEnd::exit_code) {
        headers.insert("x-exec-exit-code", code.into());
    }
    if let Some(stream) = stream {
        headers.insert("x-output-bytes", state.recorded(stream).into());
    }
}

/// The first bytes; 410 when they are not kept any more.
async fn first_page(
    gateway: &Gateway,
    exec: ExecId,
    stream: OutputStream,
    offset: u64,
    max_bytes: usize,
) -> Result<Vec<OutputChunk>, ApiError> {
    gateway.record().output.read(exec, stream, offset, max_bytes).await.map_err(ApiError::store)
}

fn recorded(
    gateway: Gateway,
    exec: ExecId,
    stream: OutputStream,
    range: Range<u64>,
    page: VecDeque<OutputChunk>,
) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
    futures::stream::try_unfold((gateway, range, page), move |(gateway, mut range, mut page)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        if page.is_empty() {
            // A hole further on breaks the connection, so that nobody takes it for the end.
            let wanted = left.min(PAGE_BYTES);
            let chunks = gateway
                .record()
                .output
                .read(exec, stream, range.start, wanted)
                .await
                .map_err(io::Error::other)?;
            page.extend(chunks);
        }
        let Some(mut chunk) = page.pop_front() else {
            return Err(io::Error::other("recorded output cannot be read"));
        };
        chunk.bytes.truncate(left);
        range.start = chunk.offset + chunk.bytes.len() as u64;
        Ok(Some((chunk.bytes, (gateway, range, page))))
    })
}

/// One stream or both, as they are in the record; with `follow` until no more comes of the exec, else to the present.
pub(crate) fn live(
    gateway: Gateway,
    reader: OutputReader,
    wanted: Option<OutputStream>,
    follow: bool,
) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
    futures::stream::try_unfold((gateway, reader), move |(gateway, mut reader)| async move {
        let wants = |stream| wanted.is_none_or(|wanted| wanted == stream);
        loop {
            let next = async { if follow { reader.next().await } else { reader.next_recorded().await } };
            let item = tokio::select! {
                biased;
                item = next => item.map_err(io::Error::other)?,
                // The connection breaks, so that nobody takes this for the end.
                () = gateway.closing().cancelled() => return Err(io::Error::other("the gateway stops")),
            };
            match item {
                Some(OutputItem::Output { stream, bytes, .. }) if wants(stream) => {
                    return Ok(Some((bytes, (gateway, reader))));
                }
                // The connection breaks, so that nobody misses the hole.
                Some(OutputItem::Gone { stream, next_offset, why, .. }) if wants(stream) => {
                    return Err(io::Error::other(StoreError::Gone { why, next_offset }));
                }
                Some(
                    OutputItem::Output { .. }
                    | OutputItem::Gone { .. }
                    | OutputItem::Started
                    | OutputItem::Resized(_)
                    // What it left running still writes.
                    | OutputItem::Ended { open: true, .. },
                ) => {}
                Some(OutputItem::Ended { open: false, .. } | OutputItem::Closed(_)) | None => return Ok(None),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<Wanted, ApiError> {
        let uri: axum::http::Uri = format!("/?{text}").parse().unwrap();
        axum::extract::Query::<OutputQuery>::try_from_uri(&uri).unwrap().0.read(None)
    }

    #[test]
    fn the_default_is_all_of_stdout() {
        let all = Wanted { stream: Some(OutputStream::Stdout), offset: 0, follow: false, range: None };
        assert_eq!(query("").unwrap(), all);
        assert_eq!(
            query("stream=stderr&offset=65536&follow=true").unwrap(),
            Wanted { stream: Some(OutputStream::Stderr), offset: 65536, follow: true, range: None }
        );
    }

    #[test]
    fn what_is_no_stream_no_offset_and_no_flag_is_refused() {
        for text in [
            "stream=other",
            "stream=both&offset=1",
            "stream=",
            "offset=-1",
            "offset=x",
            "offset=1.5",
            "offset=",
            "offset=+1",
            "offset=9223372036854775808",
            "follow=maybe",
            "follow=",
        ] {
            assert!(query(text).is_err(), "{text}");
        }
    }
}
