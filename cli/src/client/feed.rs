//! The server's events, as they are recorded.

use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::Value;

use super::api::Api;
use super::error::ClientError;
use super::moment::Time;
use super::sse::SseParser;

/// A server writes something at least every 15 s or so. Silent for longer, it is gone.
const SILENCE: Duration = Duration::from_secs(90);

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct FeedQuery {
    /// Only those after this position; all from now on without it.
    pub after: Option<u64>,
    /// Only those from this time on, where `after` says nothing.
    pub from: Option<Time>,
    /// Only those of this sandbox.
    pub sandbox: Option<String>,
    /// Only those of these types.
    pub types: Vec<String>,
    /// Whether to wait for more at the end.
    pub follow: bool,
}

/// An event with its place in the log.
#[derive(Debug, Clone)]
pub struct FeedEvent {
    pub position: u64,
    /// As it came.
    pub json: String,
    pub event: EventBody,
}

/// What the client reads of an event.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct EventBody {
    pub r#type: String,
    pub sandbox_id: Option<String>,
    pub timestamp: String,
    pub request_id: Option<String>,
    pub data: Value,
}

/// Events, up to a break or the end.
pub type FeedEvents = BoxStream<'static, Result<FeedEvent, ClientError>>;

/// Opens the feed.
pub async fn open(api: &Api, query: &FeedQuery) -> Result<FeedEvents, ClientError> {
    let mut request = api
        .request(Method::GET, api.url(&["events"]))
        .header(reqwest::header::ACCEPT, "text/event-stream")
        .query(&[("follow", query.follow)]);
    if let Some(after) = query.after {
        request = request.header("last-event-id", after.to_string());
    }
    if let Some(from) = query.from.filter(|_| query.after.is_none()) {
        request = request.query(&[("from", from.wire())]);
    }
    if let Some(sandbox) = &query.sandbox {
        request = request.query(&[("sandbox_id", sandbox)]);
    }
    if !query.types.is_empty() {
        request = request.query(&[("types", query.types.join(","))]);
    }
    Ok(events(api, api.send(request).await?))
}

fn events(api: &Api, response: Response) -> FeedEvents {
    struct State {
        api: Api,
        response: Response,
        parser: SseParser,
    }
    let state = State { api: api.clone(), response, parser: SseParser::default() };
    stream::try_unfold(state, |mut state| async move {
        loop {
            let unexpected = |error: &dyn std::fmt::Display| ClientError::Unexpected(error.to_string());
            if let Some(event) = state.parser.next_event().map_err(|error| unexpected(&error))? {
                return Ok(Some((read(&event.id, event.data)?, state)));
            }
            match tokio::time::timeout(SILENCE, state.response.chunk()).await {
                Ok(Ok(Some(bytes))) => state.parser.push(&bytes),
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(state.api.lost(error)),
                Err(_) => {
                    return Err(ClientError::Broken(
                        format!("nothing came for {} s", SILENCE.as_secs()).into(),
                    ));
                }
            }
        }
    })
    .boxed()
}

fn read(id: &str, json: String) -> Result<FeedEvent, ClientError> {
    let unexpected =
        |error: &dyn std::fmt::Display| ClientError::Unexpected(format!("not an event: {error}"));
    let position = id.parse().map_err(|error| unexpected(&error))?;
    let event = serde_json::from_str(&json).map_err(|error| unexpected(&error))?;
    Ok(FeedEvent { position, json, event })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_needs_a_position_and_an_object() {
        let event = read(
            "7",
            r#"{"id":"e","type":"sandbox.running","sandbox_id":"sb-1","data":{"node":"n"}}"#.to_owned(),
        );
        let event = event.unwrap();
        assert_eq!((event.position, event.event.r#type.as_str()), (7, "sandbox.running"));
        assert_eq!(event.event.data["node"], "n");
        assert!(read("", "{}".to_owned()).is_err());
        assert!(read("1", "x".to_owned()).is_err());
        assert!(read("1", r#"{"type":5}"#.to_owned()).is_err());
    }
}
