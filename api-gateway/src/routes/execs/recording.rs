//! `GET /execs/{id}/recording`

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use events::Position;
use futures::{Stream, StreamExt};
use record::{EventFilter, StoreError};
use serde::Deserialize;
use utoipa::IntoParams;

use super::find;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{ExecPath, QueryOf};
use crate::gateway::Gateway;
use crate::stream::asciicast::{Asciicast, Form};

/// How many events are read from the record at once: each may have 64 KiB.
const PAGE: u32 = 32;

/// Which form.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RecordingQuery {
    /// `asciicast-v3` (the default) or `asciicast-v2`.
    pub format: Option<String>,
}

impl RecordingQuery {
    fn read(&self) -> Result<Form, ApiError> {
        match self.format.as_deref() {
            None | Some("asciicast-v3") => Ok(Form::V3),
            Some("asciicast-v2") => Ok(Form::V2),
            Some(_) => Err(ApiError::bad_request("format must be asciicast-v3 or asciicast-v2")),
        }
    }
}

/// An exec as a recording that asciinema plays, also after its sandbox is gone. Of a running exec: what there is so far.
///
/// Both streams are output (`o`); input (`i`) is there where it is recorded. Bytes that are not UTF-8 are U+FFFD. Where
/// there was no terminal, the size is 80x24 and lines end in CR LF, as a terminal would have made them.
#[utoipa::path(
    get,
    path = "/execs/{id}/recording",
    tag = "execs",
    params(("id" = String, Path, description = "The exec"), RecordingQuery),
    responses(
        (status = 200, description = "The recording", body = String, content_type = "application/x-asciicast"),
        (status = 400, description = "No such format", body = ErrorBody),
        (status = 404, description = "No such exec", body = ErrorBody),
        (status = 410, description = "Its beginning is not kept any more", body = ErrorBody),
    )
)]
pub(crate) async fn recording(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    QueryOf(query): QueryOf<RecordingQuery>,
) -> Result<Response, ApiError> {
    let form = query.read()?;
    let state = find(&gateway, &caller, id).await?;
    let mut cast = Asciicast::new(form, id.to_string());
    let mut out = BytesMut::new();
    if state.pending || state.spec.is_none() {
        // It has no start to begin with.
        cast.begin(state.started_at, &mut out);
    }
    let filter = EventFilter { exec: Some(id), ..EventFilter::default() };
    let mut recording = Recording { gateway, filter, cast, after: Some(Position::ZERO) };
    // What cannot be read from its beginning on is told before anything is sent.
    let first = recording.page(out).await.map_err(ApiError::store)?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-asciicast".to_owned()),
        (header::CONTENT_DISPOSITION, format!("inline; filename=\"{id}.cast\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        // What a sandbox wrote must never run in the origin of the API.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    let first = futures::stream::once(std::future::ready(Ok(first)));
    Ok((headers, Body::from_stream(first.chain(recording.rest()))).into_response())
}

/// A recording on its way out, a page of events at a time.
struct Recording {
    gateway: Gateway,
    filter: EventFilter,
    cast: Asciicast,
    /// Where the next page begins, if there is one.
    after: Option<Position>,
}

impl Recording {
    /// The lines of the next page, after what `out` has.
    async fn page(&mut self, mut out: BytesMut) -> Result<Bytes, StoreError> {
        let Some(after) = self.after else {
            return Ok(out.freeze());
        };
        let frames = self.gateway.store().read(&self.filter, after, PAGE).await?;
        for frame in &frames {
            // An event of a newer build has no line here.
            if let Ok(event) = frame.decode() {
                self.cast.event(&event, &mut out);
            }
        }
        self.after = frames.last().filter(|_| frames.len() == PAGE as usize).map(|last| last.position);
        if self.after.is_none() {
            self.cast.finish(&mut out);
        }
        Ok(out.freeze())
    }

    /// The other pages. An error cuts the connection, so that nobody takes it for the end.
    fn rest(self) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
        futures::stream::try_unfold(self, |mut recording| async move {
            if recording.after.is_none() {
                return Ok(None);
            }
            let page = recording.page(BytesMut::new()).await.map_err(io::Error::other)?;
            Ok(Some((page, recording)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_the_newest_form() {
        let read = |format: Option<&str>| RecordingQuery { format: format.map(str::to_owned) }.read();
        assert_eq!(read(None).unwrap(), Form::V3);
        assert_eq!(read(Some("asciicast-v2")).unwrap(), Form::V2);
        for bad in ["", "v3", "asciicast-v1", "gif"] {
            assert!(read(Some(bad)).is_err(), "{bad}");
        }
    }
}
