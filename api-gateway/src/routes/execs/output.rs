//! `GET /execs/{id}/output`

use std::collections::VecDeque;
use std::io;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use events::{ExecId, OutputChunk, OutputItem, OutputReader, OutputStream, StoreError};
use futures::Stream;
use serde::Deserialize;
use utoipa::IntoParams;

use super::find;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::start::read;
use crate::extract::{ExecPath, QueryOf};
use crate::gateway::Gateway;
use crate::stream::raw;

/// How much is read from the record at once, in bytes.
const PAGE_BYTES: usize = 1 << 20;

/// Which bytes.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct OutputQuery {
    /// `stdout` (the default) or `stderr`.
    pub stream: Option<String>,
    /// The first byte, counted from 0.
    pub offset: Option<String>,
    /// `true`: go on with what is written from now on, until the exec ends.
    pub follow: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    stream: OutputStream,
    offset: u64,
    follow: bool,
}

impl OutputQuery {
    fn read(&self) -> Result<Wanted, ApiError> {
        Ok(Wanted {
            stream: match self.stream.as_deref() {
                None | Some("stdout") => OutputStream::Stdout,
                Some("stderr") => OutputStream::Stderr,
                Some(_) => return Err(ApiError::bad_request("stream must be stdout or stderr")),
            },
            offset: offset(self.offset.as_deref(), "offset")?,
            follow: flag(self.follow.as_deref(), "follow")?,
        })
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
#[utoipa::path(
    get,
    path = "/execs/{id}/output",
    tag = "execs",
    params(("id" = String, Path, description = "The exec"), OutputQuery),
    responses(
        (status = 200, description = "The bytes", body = String, content_type = "application/octet-stream"),
        (status = 400, description = "No such stream, or no offset", body = ErrorBody),
        (status = 404, description = "No such exec", body = ErrorBody),
        (status = 410, description = "These bytes are not kept any more; `X-Next-Offset` says where output goes on", body = ErrorBody),
    )
)]
pub(crate) async fn output(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    QueryOf(query): QueryOf<OutputQuery>,
) -> Result<Response, ApiError> {
    let wanted = query.read()?;
    let state = find(&gateway, &caller.tenant, id).await?;
    if wanted.follow && state.end.is_none() {
        // The other stream is of no interest, from wherever it would begin.
        let skip = i64::MAX.unsigned_abs();
        let (stdout, stderr) = match wanted.stream {
            OutputStream::Stdout => (wanted.offset, skip),
            OutputStream::Stderr => (skip, wanted.offset),
        };
        // Before the answer begins, so that it can still be another one.
        first_page(&gateway, id, wanted.stream, wanted.offset, 1).await?;
        let reader = read(&gateway, id, stdout, stderr).await?;
        return Ok(raw::respond(live(gateway, reader, wanted.stream)));
    }
    let page = first_page(&gateway, id, wanted.stream, wanted.offset, PAGE_BYTES).await?;
    Ok(raw::respond(recorded(gateway, id, wanted.stream, wanted.offset, page.into())))
}

/// The first bytes; 410 when they are not kept any more.
async fn first_page(
    gateway: &Gateway,
    exec: ExecId,
    stream: OutputStream,
    offset: u64,
    max_bytes: usize,
) -> Result<Vec<OutputChunk>, ApiError> {
    gateway.store().output(exec, stream, offset, max_bytes).await.map_err(ApiError::store)
}

fn recorded(
    gateway: Gateway,
    exec: ExecId,
    stream: OutputStream,
    offset: u64,
    page: VecDeque<OutputChunk>,
) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
    futures::stream::try_unfold((gateway, offset, page), move |(gateway, mut offset, mut page)| async move {
        if page.is_empty() {
            // A hole further on breaks the connection, so that nobody takes it for the end.
            let chunks =
                gateway.store().output(exec, stream, offset, PAGE_BYTES).await.map_err(io::Error::other)?;
            page.extend(chunks);
        }
        let Some(chunk) = page.pop_front() else {
            return Ok(None);
        };
        offset = chunk.offset + chunk.bytes.len() as u64;
        Ok(Some((chunk.bytes, (gateway, offset, page))))
    })
}

fn live(
    gateway: Gateway,
    reader: OutputReader,
    wanted: OutputStream,
) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
    futures::stream::try_unfold((gateway, reader), move |(gateway, mut reader)| async move {
        loop {
            let item = tokio::select! {
                biased;
                item = reader.next() => item.map_err(io::Error::other)?,
                // The connection breaks, so that nobody takes this for the end.
                () = gateway.closing().cancelled() => return Err(io::Error::other("the gateway stops")),
            };
            match item {
                Some(OutputItem::Output { stream, bytes, .. }) if stream == wanted => {
                    return Ok(Some((bytes, (gateway, reader))));
                }
                Some(OutputItem::Output { .. } | OutputItem::Started | OutputItem::Resized(_)) => {}
                // The connection breaks, so that nobody misses the hole.
                Some(OutputItem::Gone { stream, next_offset, why, .. }) if stream == wanted => {
                    return Err(io::Error::other(StoreError::Gone { why, next_offset }));
                }
                Some(OutputItem::Gone { .. }) => {}
                Some(OutputItem::Ended(_)) | None => return Ok(None),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<Wanted, ApiError> {
        let uri: axum::http::Uri = format!("/?{text}").parse().unwrap();
        axum::extract::Query::<OutputQuery>::try_from_uri(&uri).unwrap().0.read()
    }

    #[test]
    fn the_default_is_all_of_stdout() {
        assert_eq!(query("").unwrap(), Wanted { stream: OutputStream::Stdout, offset: 0, follow: false });
        assert_eq!(
            query("stream=stderr&offset=65536&follow=true").unwrap(),
            Wanted { stream: OutputStream::Stderr, offset: 65536, follow: true }
        );
    }

    #[test]
    fn what_is_no_stream_no_offset_and_no_flag_is_refused() {
        for text in [
            "stream=other",
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
