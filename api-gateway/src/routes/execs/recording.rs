//! `GET /execs/{id}/recording`

use std::io;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use events::{EventFilter, ExecId, ExecState, Position};
use futures::Stream;
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
    )
)]
pub(crate) async fn recording(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    QueryOf(query): QueryOf<RecordingQuery>,
) -> Result<Response, ApiError> {
    let form = query.read()?;
    let state = find(&gateway, &caller.tenant, id).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-asciicast".to_owned()),
        (header::CONTENT_DISPOSITION, format!("inline; filename=\"{id}.cast\"")),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        // What a sandbox wrote must never run in the origin of the API.
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    Ok((headers, Body::from_stream(lines(gateway, &state, form))).into_response())
}

/// The lines, a page of events at a time. An error cuts the connection, so that nobody takes it for the end.
fn lines(
    gateway: Gateway,
    state: &ExecState,
    form: Form,
) -> impl Stream<Item = Result<Bytes, io::Error>> + Send + use<> {
    let mut cast = Asciicast::new(form, state.id.to_string());
    let mut first = BytesMut::new();
    if state.pending || state.spec.is_none() {
        // It has no start to begin with.
        cast.begin(state.started_at, &mut first);
    }
    let filter = filter(state.id);
    let begin = (gateway, filter, cast, first, Some(Position::ZERO));
    futures::stream::try_unfold(begin, |(gateway, filter, mut cast, mut out, after)| async move {
        let Some(mut after) = after else {
            return Ok(None);
        };
        loop {
            let frames = gateway.store().read(&filter, after, PAGE).await.map_err(io::Error::other)?;
            for frame in &frames {
                // An event of a newer build has no line here.
                if let Ok(event) = frame.decode() {
                    cast.event(&event, &mut out);
                }
            }
            let next = match frames.last() {
                Some(last) if frames.len() == PAGE as usize => last.position,
                Some(_) | None => {
                    cast.finish(&mut out);
                    return Ok(Some((out.freeze(), (gateway, filter, cast, BytesMut::new(), None))));
                }
            };
            after = next;
            if !out.is_empty() {
                let bytes = out.split().freeze();
                return Ok(Some((bytes, (gateway, filter, cast, out, Some(after)))));
            }
        }
    })
}

fn filter(exec: ExecId) -> EventFilter {
    EventFilter { exec: Some(exec), ..EventFilter::default() }
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
