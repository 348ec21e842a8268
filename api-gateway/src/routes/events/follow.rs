//! `GET /events`

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, SecondsFormat, Utc};
use events::{
    After, EventData, EventId, FeedError, FeedReader, Position, Recorded, SandboxId, TenantId, Topic,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::QueryOf;
use crate::gateway::Gateway;
use crate::routes::execs::output::flag;
use crate::stream::record::write_json;

/// How much is put into one write at most.
const GATHER_BYTES: usize = 64 << 10;

/// Which events.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EventsQuery {
    /// Only those after this position; 0 for all there ever were. `Last-Event-ID` wins over it. Without either: from now on.
    pub after: Option<String>,
    /// Only those of this sandbox.
    pub sandbox_id: Option<String>,
    /// Only those of these types, separated by commas: `exec.exited,sandbox.destroyed`.
    pub types: Option<String>,
    /// `false`: end with the newest one there is, instead of waiting for more.
    pub follow: Option<String>,
}

/// An event, as it is told to clients.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventRecord<'a> {
    /// Unique.
    #[schema(value_type = String)]
    pub id: EventId,
    /// What happened: `sandbox.running`.
    pub r#type: &'static str,
    /// Which sandbox it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub sandbox_id: Option<SandboxId>,
    /// When, in UTC.
    pub timestamp: String,
    /// Who did it.
    pub actor: String,
    /// The request that it follows from: the `X-Request-ID` of whoever asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
    /// The details, which depend on the type. Output comes without its bytes.
    #[schema(value_type = Object)]
    pub data: &'a RawValue,
}

#[derive(Debug, PartialEq)]
struct Wanted {
    after: Option<Position>,
    sandbox: Option<SandboxId>,
    types: Vec<&'static str>,
    follow: bool,
}

impl EventsQuery {
    fn read(&self, headers: &HeaderMap) -> Result<Wanted, ApiError> {
        let last = match headers.get("last-event-id").map(|value| value.to_str()) {
            None => None,
            Some(Ok(text)) => Some(text),
            Some(Err(_)) => return Err(ApiError::bad_request("Last-Event-ID must be a position")),
        };
        let after = match last.filter(|text| !text.is_empty()).or(self.after.as_deref()) {
            None => None,
            Some(text) => Some(position(text)?),
        };
        let sandbox = match &self.sandbox_id {
            None => None,
            Some(text) => Some(
                text.parse().map_err(|_| ApiError::bad_request("sandbox_id is not the id of a sandbox"))?,
            ),
        };
        let types = match self.types.as_deref() {
            None => Vec::new(),
            Some(names) => names.split(',').map(event_type).collect::<Result<_, _>>()?,
        };
        let follow = match self.follow.as_deref() {
            None => true,
            follow => flag(follow, "follow")?,
        };
        Ok(Wanted { after, sandbox, types, follow })
    }
}

fn position(text: &str) -> Result<Position, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i64>() {
        Ok(position) if digits => Ok(Position(position.unsigned_abs())),
        _ => Err(ApiError::bad_request("a position is a number: the id of an event of this stream")),
    }
}

fn event_type(name: &str) -> Result<&'static str, ApiError> {
    let known = EventData::TYPES.iter().find(|known| **known == name.trim());
    known.copied().ok_or_else(|| ApiError::bad_request("types has a name that is no event type"))
}

/// The tenant's events as they are recorded, as server-sent events. `id` is the position: a client that sends the last one
/// as `Last-Event-ID` misses nothing and gets nothing twice, through any gateway.
#[utoipa::path(
    get,
    path = "/events",
    tag = "events",
    params(EventsQuery, ("Last-Event-ID" = Option<String>, Header, description = "The last position that was seen")),
    responses(
        (status = 200, description = "The events", body = EventRecord, content_type = "text/event-stream"),
        (status = 400, description = "No position, or no such type", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
    )
)]
pub(crate) async fn follow(
    State(gateway): State<Gateway>,
    caller: Caller,
    headers: HeaderMap,
    QueryOf(query): QueryOf<EventsQuery>,
) -> Result<Response, ApiError> {
    let wanted = query.read(&headers)?;
    if let Some(sandbox) = wanted.sandbox {
        // A destroyed one still has its events.
        let state = gateway.store().sandbox(sandbox).await.map_err(ApiError::store)?;
        if state.is_none_or(|state| state.tenant != caller.tenant) {
            return Err(crate::gateway::no_sandbox());
        }
    }
    let topic = wanted.sandbox.map_or(Topic::All, Topic::Sandbox);
    let after = wanted.after.map_or(After::Now, After::Position);
    let reader = gateway.feed().subscribe(topic, after);
    let until = (!wanted.follow).then(|| gateway.feed().head());
    let events = Events { gateway, tenant: caller.tenant, types: wanted.types, reader, until };
    let opening = Bytes::from_static(b"retry: 1000\n\n");
    let body = futures::stream::try_unfold((events, Some(opening)), |(mut events, opening)| async move {
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
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-store"),
        ("x-accel-buffering", "no"),
    ];
    Ok((headers, Body::from_stream(body)).into_response())
}

struct Events {
    gateway: Gateway,
    tenant: TenantId,
    types: Vec<&'static str>,
    reader: FeedReader,
    /// Where to end, for a reader who does not follow.
    until: Option<Position>,
}

impl Events {
    /// What to send next; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, FeedError> {
        let mut out = BytesMut::new();
        let gateway = self.gateway.clone();
        let silence = tokio::time::sleep(gateway.config().heartbeat);
        tokio::pin!(silence);
        loop {
            if self.until.is_some_and(|until| self.reader.cursor() >= until) {
                self.until = Some(Position::ZERO);
                return Ok((!out.is_empty()).then(|| out.freeze()));
            }
            let recorded = match self.reader.next_recorded().await? {
                Some(recorded) => recorded,
                None if !out.is_empty() => return Ok(Some(out.freeze())),
                // Nothing of a sandbox's own may be left below the head of all.
                None if self.until.is_some() => return Ok(None),
                None => tokio::select! {
                    biased;
                    read = self.reader.next() => read?,
                    () = &mut silence => return Ok(Some(Bytes::from_static(b": still here\n\n"))),
                    () = gateway.closing().cancelled() => return Ok(None),
                },
            };
            if recorded.event.tenant == self.tenant && self.wants(&recorded) {
                write_event(&recorded, &mut out);
            }
            if out.len() >= GATHER_BYTES {
                return Ok(Some(out.freeze()));
            }
        }
    }

    fn wants(&self, recorded: &Recorded) -> bool {
        self.types.is_empty() || self.types.contains(&recorded.event.data.type_name())
    }
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

fn write_event(recorded: &Recorded, out: &mut BytesMut) {
    let event = &recorded.event;
    // The stored header has the details as JSON already.
    let Ok(Header { data }) = serde_json::from_slice::<Header<'_>>(&recorded.frame.header) else {
        return;
    };
    let record = EventRecord {
        id: event.id,
        r#type: event.data.type_name(),
        sandbox_id: event.sandbox,
        timestamp: instant(event.time),
        actor: event.actor.to_string(),
        request_id: event.request_id.as_ref().map(events::RequestId::as_str),
        data,
    };
    out.put_slice(b"id: ");
    out.put_slice(recorded.position().to_string().as_bytes());
    out.put_slice(b"\ndata: ");
    write_json(&record, out);
    out.put_slice(b"\n\n");
}

fn instant(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: EventsQuery, last: Option<&str>) -> Result<Wanted, ApiError> {
        let mut headers = HeaderMap::new();
        if let Some(last) = last {
            headers.insert("last-event-id", last.parse().unwrap());
        }
        query.read(&headers)
    }

    #[test]
    fn the_header_wins_over_the_query() {
        let query = || EventsQuery { after: Some("5".to_owned()), ..EventsQuery::default() };
        assert_eq!(read(query(), Some("7")).unwrap().after, Some(Position(7)));
        assert_eq!(read(query(), Some("")).unwrap().after, Some(Position(5)));
        assert_eq!(read(EventsQuery::default(), None).unwrap().after, None);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["nonsense", "-1", "1.5", "+1", "9223372036854775808"] {
            assert!(read(EventsQuery::default(), Some(bad)).is_err(), "{bad}");
        }
        let types =
            EventsQuery { types: Some("exec.exited,exec.nothing".to_owned()), ..EventsQuery::default() };
        assert!(read(types, None).is_err());
        let sandbox = EventsQuery { sandbox_id: Some("sb-*".to_owned()), ..EventsQuery::default() };
        assert!(read(sandbox, None).is_err());
    }

    #[test]
    fn types_are_separated_by_commas() {
        let types =
            EventsQuery { types: Some("exec.exited, sandbox.running".to_owned()), ..EventsQuery::default() };
        assert_eq!(read(types, None).unwrap().types, ["exec.exited", "sandbox.running"]);
    }
}
