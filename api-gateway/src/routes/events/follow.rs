//! `GET /events`

use std::borrow::Cow;

use api_types::EventRecord;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, SecondsFormat, Utc};
use events::{EventId, Frame, Position, SandboxId};
use feed::{FeedError, LogReader};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::query::EventsQuery;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::QueryOf;
use crate::gateway::Gateway;
use crate::stream::lines::write_line;
use crate::stream::record::write_json;

/// How much is put into one write at most: events, and bytes.
const GATHER_EVENTS: usize = 256;
const GATHER_BYTES: usize = 64 << 10;

/// The tenant's events as they are recorded: as server-sent events, or as lines of JSON (NDJSON) that are exactly those of
/// `/events/ws`. The `id` of a server-sent event and the `position` of a line say where to go on: a client that sends
/// the last one as `Last-Event-ID` (or `after`) misses nothing and gets nothing twice, through any gateway.
#[utoipa::path(
    get,
    path = "/events",
    tag = "events",
    params(EventsQuery, ("Last-Event-ID" = Option<String>, Header, description = "The last position that was seen")),
    responses(
        (status = 200, description = "The events", body = EventRecord, content_type = "text/event-stream"),
        (status = 400, description = "No position, or no such type", body = ErrorBody),
        (status = 404, description = "No such sandbox, exec or tenant", body = ErrorBody),
    )
)]
pub(crate) async fn follow(
    State(gateway): State<Gateway>,
    caller: Caller,
    headers: HeaderMap,
    QueryOf(query): QueryOf<EventsQuery>,
) -> Result<Response, ApiError> {
    let form = if query.wants_lines(&headers)? { Form::Lines } else { Form::ServerSent };
    let (reader, until) = query.read(&headers, &caller)?.open(&gateway, &caller).await?;
    let opening = match form {
        Form::ServerSent => Some(Bytes::from_static(b"retry: 1000\n\n")),
        Form::Lines => None,
    };
    let events = Events { gateway, form, reader, until, complete: false };
    let body = futures::stream::try_unfold((events, opening), |(mut events, opening)| async move {
        let bytes = match opening {
            Some(opening) => Some(opening),
            // An error breaks the connection, so that nobody takes this for the end. A client that follows comes back
            // with the last position that it saw.
            None => events.next().await.inspect_err(|error| {
                tracing::warn!(error = error as &dyn std::error::Error, "a stream of events breaks");
            })?,
        };
        Ok::<_, FeedError>(bytes.map(|bytes| (bytes, (events, None))))
    });
    let headers = [
        (header::CONTENT_TYPE.as_str(), form.content_type()),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

#[derive(Debug, Clone, Copy)]
enum Form {
    ServerSent,
    Lines,
}

impl Form {
    const fn content_type(self) -> &'static str {
        match self {
            Self::ServerSent => "text/event-stream",
            Self::Lines => "application/x-ndjson",
        }
    }

    /// Shows that a silent stream lives, and means nothing.
    const fn sign_of_life(self) -> &'static [u8] {
        match self {
            Self::ServerSent => b": still here\n\n",
            Self::Lines => b"\n",
        }
    }

    fn write(self, frame: &Frame, out: &mut BytesMut) {
        match self {
            Self::ServerSent => write_event(frame, out),
            Self::Lines => {
                let mut line = String::new();
                write_line(frame, &mut line);
                out.put_slice(line.as_bytes());
            }
        }
    }
}

struct Events {
    gateway: Gateway,
    form: Form,
    reader: LogReader,
    /// Where to end, for a reader who does not follow.
    until: Option<Position>,
    complete: bool,
}

impl Events {
    /// What to send next; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, FeedError> {
        if self.complete {
            return Ok(None);
        }
        let frames = match self.until {
            Some(until) => {
                let frames = self.reader.next_recorded(GATHER_EVENTS).await?;
                self.complete = frames.last().is_none_or(|last| last.position >= until);
                frames
            }
            None => {
                let gateway = self.gateway.clone();
                tokio::select! {
                    biased;
                    read = self.reader.next(GATHER_EVENTS) => read?,
                    () = tokio::time::sleep(gateway.config().heartbeat) => {
                        return Ok(Some(Bytes::from_static(self.form.sign_of_life())));
                    }
                    () = gateway.closing().cancelled() => return Ok(None),
                }
            }
        };
        if frames.is_empty() {
            return Ok(None);
        }
        let mut out = BytesMut::with_capacity(GATHER_BYTES);
        for frame in &frames {
            self.form.write(frame, &mut out);
        }
        Ok(Some(out.freeze()))
    }
}

#[derive(Deserialize)]
struct Header<'a> {
    id: EventId,
    r#type: &'a str,
    subject: Option<SandboxId>,
    time: DateTime<Utc>,
    #[serde(borrow)]
    actor: Cow<'a, str>,
    requestid: Option<&'a str>,
    #[serde(borrow)]
    data: &'a RawValue,
}

fn write_event(frame: &Frame, out: &mut BytesMut) {
    let header: Header<'_> = match serde_json::from_slice(&frame.header) {
        Ok(header) => header,
        Err(error) => {
            tracing::error!(event.position = %frame.position, error = %error, "a stored header cannot be read");
            return;
        }
    };
    let record = EventRecord {
        id: header.id.to_string().into(),
        r#type: header.r#type.into(),
        sandbox_id: header.subject.map(|id| id.to_string().into()),
        timestamp: header.time.to_rfc3339_opts(SecondsFormat::Micros, true).into(),
        actor: header.actor,
        request_id: header.requestid.map(Cow::Borrowed),
        data: Cow::Borrowed(header.data),
    };
    out.put_slice(b"id: ");
    out.put_slice(frame.position.to_string().as_bytes());
    out.put_slice(b"\ndata: ");
    write_json(&record, out);
    out.put_slice(b"\n\n");
}
