//! Following an exec over as many connections and servers as that takes.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use api_types::{EndRecord, ExecRequest, OutputStream};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt as _};
use reqwest::{Method, Response};

use crate::client::Client;
use crate::error::ClientError;
use crate::key::IdempotencyKey;
use crate::lines::LineSplitter;
use crate::offsets::Offsets;
use crate::patience::Reopening;
use crate::record::Record;

/// A server sends a blank line at least every 15 s or so. Silent for longer, it is gone.
const SILENCE: Duration = Duration::from_secs(90);

/// What a followed exec does next.
#[derive(Debug, Clone, PartialEq)]
pub enum ExecUpdate {
    /// It has this id.
    Started(String),
    /// It wrote something. Each byte comes once, whatever happened to connections and servers.
    Output {
        /// To which stream.
        stream: OutputStream,
        /// Where the first byte stands in the stream.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// These bytes are not in the record any more: they were erased, or were older than what is kept.
    Gone {
        /// Of which stream.
        stream: OutputStream,
        /// The first one that is missing.
        from: u64,
        /// The first one that is there.
        to: u64,
    },
    /// The connection broke, for this reason. The stream goes on by itself where it stood: this is for people.
    Interrupted(String),
    /// It is over. Nothing comes after it.
    Ended(EndRecord),
}

/// What an exec does, up to its end, over as many connections and servers as that takes.
///
/// A `futures` [`Stream`]; dropping it leaves the exec running.
pub struct ExecStream(BoxStream<'static, Result<ExecUpdate, ClientError>>);

/// How an exec came to be, where we started it.
pub(crate) struct Origin {
    pub(crate) sandbox: String,
    pub(crate) request: ExecRequest,
    pub(crate) key: IdempotencyKey,
}

struct Following {
    client: Client,
    exec: Option<String>,
    origin: Option<Origin>,
    offsets: Offsets,
    records: Option<Records>,
    reopening: Reopening,
    is_over: bool,
}

impl ExecStream {
    pub(crate) async fn open(
        client: &Client,
        exec: Option<String>,
        origin: Option<Origin>,
        offsets: Offsets,
    ) -> Result<Self, ClientError> {
        let mut following = Following {
            client: client.clone(),
            exec,
            origin,
            offsets,
            records: None,
            reopening: Reopening::new(client.patience()),
            is_over: false,
        };
        following.records = Some(following.connect().await?);
        following.reopening.opened();
        let updates = stream::try_unfold(following, |mut following| async move {
            Ok(following.next().await?.map(|update| (update, following)))
        });
        Ok(Self(updates.boxed()))
    }

    /// The next update; `None` after the end, and after an error. Cancel safe.
    pub async fn next(&mut self) -> Option<Result<ExecUpdate, ClientError>> {
        self.0.next().await
    }
}

impl Stream for ExecStream {
    type Item = Result<ExecUpdate, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx)
    }
}

impl Following {
    async fn next(&mut self) -> Result<Option<ExecUpdate>, ClientError> {
        if self.is_over {
            return Ok(None);
        }
        loop {
            let record = match &mut self.records {
                Some(records) => records.next().await,
                None => {
                    self.records = Some(self.reconnect().await?);
                    continue;
                }
            };
            let why = match record {
                Some(Ok(Record::Ended(end))) if end.is_interruption() => end
                    .error
                    .map_or_else(|| "the server stops".to_owned(), |error| error.message.into_owned()),
                Some(Ok(record)) => {
                    self.reopening.progressed();
                    match self.take(record)? {
                        Some(update) => return Ok(Some(update)),
                        None => continue,
                    }
                }
                Some(Err(error)) if error.is_passing() => error.to_string(),
                Some(Err(error)) => return Err(error),
                None => "the stream ended before the command did".to_owned(),
            };
            self.records = None;
            return Ok(Some(ExecUpdate::Interrupted(why)));
        }
    }

    fn take(&mut self, record: Record) -> Result<Option<ExecUpdate>, ClientError> {
        Ok(match record {
            Record::Started(exec) => {
                let is_known = self.exec.as_ref() == Some(&exec);
                self.exec = Some(exec.clone());
                (!is_known).then_some(ExecUpdate::Started(exec))
            }
            Record::Output { stream, offset, bytes } => {
                let (offset, bytes) = self.offsets.take(stream, offset, bytes)?;
                (!bytes.is_empty()).then_some(ExecUpdate::Output { stream, offset, bytes })
            }
            Record::Gone { stream, to } => {
                self.offsets.pass_over(stream, to).map(|from| ExecUpdate::Gone { stream, from, to })
            }
            Record::Ended(end) => {
                self.is_over = true;
                Some(ExecUpdate::Ended(end))
            }
        })
    }

    /// Reads on, through whatever gateway answers.
    async fn reconnect(&mut self) -> Result<Records, ClientError> {
        if !self.reopening.broke().await {
            return Err(ClientError::Broken("each time that it is opened it ends at once".into()));
        }
        // An id is known a little before the record has it.
        let is_new = self.origin.is_some() && self.exec.is_some();
        loop {
            match self.connect().await {
                Err(error) if error.is_passing() || is_new && error.is_not_found() => {
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

    async fn connect(&mut self) -> Result<Records, ClientError> {
        let response = match (&self.exec, &self.origin) {
            (None, Some(Origin { sandbox, request, key })) => {
                // With the same key again, it is the same command, not a second one.
                let request = self.client.exec_request(sandbox, request, key).query(&[("records", "all")]);
                self.client.send(request).await?
            }
            (exec, _) => {
                let url = self.client.url(&["execs", exec.as_deref().unwrap_or_default(), "stream"]);
                let offsets =
                    [("stdout_offset", self.offsets.stdout), ("stderr_offset", self.offsets.stderr)];
                self.client.send(self.client.request(Method::GET, url).query(&offsets)).await?
            }
        };
        Ok(records(&self.client, response))
    }
}

/// The records of an exec, up to a break or the end.
type Records = BoxStream<'static, Result<Record, ClientError>>;

fn records(client: &Client, response: Response) -> Records {
    let state = (client.clone(), response, LineSplitter::default());
    stream::try_unfold(state, |(client, mut response, mut lines)| async move {
        loop {
            while let Some(line) =
                lines.next_line().map_err(|error| ClientError::Unexpected(error.to_string()))?
            {
                if let Some(record) = Record::read(&line)? {
                    return Ok(Some((record, (client, response, lines))));
                }
            }
            match tokio::time::timeout(SILENCE, response.chunk()).await {
                Ok(Ok(Some(bytes))) => lines.push(&bytes),
                // What stands in the buffer is half a record: it comes again.
                Ok(Ok(None)) => return Ok(None),
                Ok(Err(error)) => return Err(client.lost(error)),
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
