//! The server's events, as they are recorded.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::client::Client;
use crate::error::ClientError;
use crate::patience::Reopening;
use crate::sse::SseEvents;

/// A server writes something at least every 15 s or so. Silent for longer, it is gone.
const SILENCE: Duration = Duration::from_secs(90);

/// Which events.
#[derive(Debug, Clone, Default)]
pub struct EventsQuery {
    /// Only those after this position (0 is before the first event); all from now on without it.
    pub after: Option<u64>,
    /// Only those from this time on, where `after` says nothing.
    pub from: Option<DateTime<Utc>>,
    /// Only those of this sandbox.
    pub sandbox: Option<String>,
    /// Only those of these types: `exec.exited`.
    pub types: Vec<String>,
    /// Whether to wait for more at the end.
    pub follow: bool,
}

/// An event with its place in the log.
#[derive(Debug, Clone, PartialEq)]
pub struct FeedEvent {
    /// Its place. Whoever has seen this event goes on after it.
    pub position: u64,
    /// As it came: also what this crate does not know.
    pub json: String,
    /// What is read of it.
    pub event: EventBody,
}

/// What a client reads of an event.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EventBody {
    /// Unique.
    pub id: String,
    /// What happened: `sandbox.running`. A newer server may have types that this crate does not know.
    pub r#type: String,
    /// Which sandbox it is about.
    pub sandbox_id: Option<String>,
    /// When, in UTC (RFC 3339).
    pub timestamp: String,
    /// Who did it.
    pub actor: String,
    /// The request that it follows from.
    pub request_id: Option<String>,
    /// The details, which depend on the type.
    pub data: Value,
}

/// What a stream of events tells.
#[derive(Debug, Clone, PartialEq)]
pub enum EventUpdate {
    /// Something happened. Each event comes once, in the order of the log.
    Event(FeedEvent),
    /// The connection broke. The stream goes on by itself: this is for people.
    Interrupted {
        /// What is wrong.
        why: String,
        /// Whether events may be missed, because none has come by whose position it could go on, and the query names
        /// neither a position nor a time.
        may_miss: bool,
    },
}

/// Events as they are recorded, over as many connections and servers as that takes.
///
/// A `futures` [`Stream`]. Without `follow` it ends with the last event that was there.
pub struct EventStream(BoxStream<'static, Result<EventUpdate, ClientError>>);

impl Client {
    /// Opens a stream of events, which goes on after the last one that came whenever its connection breaks. The first
    /// connection must succeed.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// use client::{EventUpdate, EventsQuery};
    ///
    /// let query = EventsQuery { after: Some(0), follow: true, ..EventsQuery::default() };
    /// let mut events = client.events(query).await?;
    /// while let Some(update) = events.next().await {
    ///     if let EventUpdate::Event(event) = update? {
    ///         println!("{} {}", event.position, event.event.r#type);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn events(&self, query: EventsQuery) -> Result<EventStream, ClientError> {
        let mut following = Following {
            client: self.clone(),
            query,
            connection: None,
            reopening: Reopening::new(self.patience()),
            is_over: false,
        };
        following.connection = Some(following.connect().await?);
        following.reopening.opened();
        let updates = stream::try_unfold(following, |mut following| async move {
            Ok(following.next().await?.map(|update| (update, following)))
        });
        Ok(EventStream(updates.boxed()))
    }
}

impl EventStream {
    /// The next update; `None` at the end, and after an error. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<EventUpdate, ClientError>> {
        self.0.next().await
    }
}

impl Stream for EventStream {
    type Item = Result<EventUpdate, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

struct Following {
    client: Client,
    query: EventsQuery,
    connection: Option<SseEvents>,
    reopening: Reopening,
    is_over: bool,
}

impl Following {
    async fn next(&mut self) -> Result<Option<EventUpdate>, ClientError> {
        if self.is_over {
            return Ok(None);
        }
        loop {
            let Some(connection) = &mut self.connection else {
                self.connection = Some(self.reconnect().await?);
                continue;
            };
            let why = match connection.next().await {
                Ok(Some(event)) => {
                    let event = read(&event.id, event.data)?;
                    self.reopening.progressed();
                    self.query.after = Some(event.position);
                    return Ok(Some(EventUpdate::Event(event)));
                }
                Ok(None) if !self.query.follow => {
                    self.is_over = true;
                    return Ok(None);
                }
                Ok(None) => "the stream ended".to_owned(),
                Err(error) if error.is_passing() => error.to_string(),
                Err(error) => return Err(error),
            };
            self.connection = None;
            let may_miss = self.query.after.is_none() && self.query.from.is_none();
            return Ok(Some(EventUpdate::Interrupted { why, may_miss }));
        }
    }

    async fn reconnect(&mut self) -> Result<SseEvents, ClientError> {
        if !self.reopening.broke().await {
            return Err(ClientError::Broken("each time that it is opened it ends at once".into()));
        }
        loop {
            match self.connect().await {
                Err(error) if error.is_passing() => {
                    if !self.reopening.failed().await {
                        return Err(error);
                    }
                }
                outcome => {
                    self.reopening.opened();
                    return outcome;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<SseEvents, ClientError> {
        let query = &self.query;
        let mut request = self
            .client
            .request(Method::GET, self.client.url(&["events"]))
            .header(reqwest::header::ACCEPT, "text/event-stream")
            .query(&[("follow", query.follow)]);
        if let Some(after) = query.after {
            request = request.header("last-event-id", after.to_string());
        }
        if let Some(from) = query.from.filter(|_| query.after.is_none()) {
            request = request.query(&[("from", from.to_rfc3339_opts(SecondsFormat::Micros, true))]);
        }
        if let Some(sandbox) = &query.sandbox {
            request = request.query(&[("sandbox_id", sandbox)]);
        }
        if !query.types.is_empty() {
            request = request.query(&[("types", query.types.join(","))]);
        }
        let response = self.client.send(request).await?;
        let client = self.client.clone();
        let pieces = stream::try_unfold((client, response), |(client, mut response)| async move {
            match tokio::time::timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(bytes))) => Ok(Some((bytes, (client, response)))),
                Ok(Ok(None)) => Ok(None),
                Ok(Err(error)) => Err(client.lost(error)),
                Err(_) => {
                    Err(ClientError::Broken(format!("nothing came for {} s", SILENCE.as_secs()).into()))
                }
            }
        });
        Ok(SseEvents::new(pieces))
    }
}

fn read(id: &str, json: String) -> Result<FeedEvent, ClientError> {
    let position = id.parse().map_err(|error| ClientError::unexpected("an event", error))?;
    let event = serde_json::from_str(&json).map_err(|error| ClientError::unexpected("an event", error))?;
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
