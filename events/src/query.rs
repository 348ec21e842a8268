//! Questions that executors put to the record: they hold no database credentials, the recorder answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{EventStore, ExecId, ExecState, Log, NodeId, SandboxId, SandboxState, without_values};

/// Sandboxes an answer.
const PAGE: usize = 200;

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "snake_case")]
enum Query {
    LiveOnNode { node: NodeId, after: Option<SandboxId> },
    Sandbox { id: SandboxId },
    Exec { id: ExecId },
}

#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Sandboxes(Vec<SandboxRecord>),
    Exec(Option<Box<ExecState>>),
    Failed(String),
}

/// Whether these bytes are a question or an answer.
pub(crate) fn reads(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Query>(bytes).is_ok() || serde_json::from_slice::<Answer>(bytes).is_ok()
}

/// How long the next message of an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much of an answer one message holds: less than NATS takes as it comes (1 MiB).
const PART: usize = 512 << 10;
/// A page of sandboxes with thousands of commands each, whose arguments may be long.
const LONGEST_ANSWER: usize = 256 << 20;
/// Marks a message that another one follows.
const MORE: &str = "Stacyvm-More";

/// What the record says about one sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its state.
    pub sandbox: SandboxState,
    /// Its execs that have not ended.
    pub live_execs: Vec<ExecState>,
}

/// Why the record did not answer. A later try can succeed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No recorder is there, or it is too slow.
    #[error("the recorder does not answer")]
    NoAnswer,
    /// The recorder could not read the store.
    #[error("the recorder failed: {0}")]
    Failed(String),
}

impl Log {
    /// All sandboxes that are live on this node by the record, with their live execs.
    pub async fn live_on_node(&self, node: &NodeId) -> Result<Vec<SandboxRecord>, QueryError> {
        let mut all = Vec::new();
        loop {
            let after = all.last().map(|record: &SandboxRecord| record.sandbox.id);
            let page = self.ask_sandboxes(&Query::LiveOnNode { node: node.clone(), after }).await?;
            let last = page.len() < PAGE;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    /// What the record says about one sandbox; `None` when it has never heard of it.
    pub async fn sandbox_record(&self, id: SandboxId) -> Result<Option<SandboxRecord>, QueryError> {
        Ok(self.ask_sandboxes(&Query::Sandbox { id }).await?.into_iter().next())
    }

    /// What the record says about one exec; `None` when it has never heard of it.
    pub async fn exec_record(&self, id: ExecId) -> Result<Option<ExecState>, QueryError> {
        match self.ask(&Query::Exec { id }).await? {
            Answer::Exec(exec) => Ok(exec.map(|exec| *exec)),
            Answer::Failed(why) => Err(QueryError::Failed(why)),
            Answer::Sandboxes(_) => Err(QueryError::Failed("an answer to another question".to_owned())),
        }
    }

    async fn ask_sandboxes(&self, query: &Query) -> Result<Vec<SandboxRecord>, QueryError> {
        match self.ask(query).await? {
            Answer::Sandboxes(records) => Ok(records),
            Answer::Failed(why) => Err(QueryError::Failed(why)),
            Answer::Exec(_) => Err(QueryError::Failed("an answer to another question".to_owned())),
        }
    }

    async fn ask(&self, query: &Query) -> Result<Answer, QueryError> {
        let payload = serde_json::to_vec(query).map_err(|error| QueryError::Failed(error.to_string()))?;
        let (client, inbox) = (self.client(), self.client().new_inbox());
        let mut parts = client.subscribe(inbox.clone()).await.map_err(|_| QueryError::NoAnswer)?;
        client
            .publish_with_reply(self.subjects().query(), inbox, payload.into())
            .await
            .map_err(|_| QueryError::NoAnswer)?;
        let mut answer = Vec::new();
        loop {
            let part = tokio::time::timeout(PATIENCE, parts.next()).await;
            let part = part.ok().flatten().ok_or(QueryError::NoAnswer)?;
            if part.status == Some(async_nats::StatusCode::NO_RESPONDERS) {
                return Err(QueryError::NoAnswer);
            }
            answer.extend_from_slice(&part.payload);
            if answer.len() > LONGEST_ANSWER {
                return Err(QueryError::Failed("the answer has no end".to_owned()));
            }
            if part.headers.as_ref().is_none_or(|headers| headers.get(MORE).is_none()) {
                return serde_json::from_slice(&answer)
                    .map_err(|error| QueryError::Failed(without_values(&error)));
            }
        }
    }
}

/// Answers the questions of executors until `stop`. Any number of recorders may answer; one does.
pub async fn serve_queries(log: &Log, store: Arc<dyn EventStore>, stop: CancellationToken) {
    let mut requests = loop {
        match log.client().queue_subscribe(log.subjects().query(), "recorder".to_owned()).await {
            Ok(requests) => break requests,
            Err(error) => {
                tracing::warn!(error = %error, "cannot listen for queries; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return,
            message = requests.next() => message,
        };
        let Some(message) = message else { return };
        let Some(reply) = message.reply else { continue };
        let answer = match serde_json::from_slice(&message.payload) {
            Ok(query) => answer(&*store, query).await.unwrap_or_else(|error| {
                tracing::warn!(error = %error, "a query failed");
                Answer::Failed("the event store cannot be read".to_owned())
            }),
            Err(error) => Answer::Failed(without_values(&error)),
        };
        if let Err(error) = reply_with(log.client(), reply, &answer).await {
            // Whoever asked asks again.
            tracing::warn!(error = %error, "an answer to an executor was not sent");
        }
    }
}

/// Sends an answer in as many messages as it takes.
async fn reply_with(
    client: &async_nats::Client,
    reply: async_nats::Subject,
    answer: &Answer,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut payload = Bytes::from(serde_json::to_vec(answer)?);
    while payload.len() > PART {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert(MORE, "1");
        client.publish_with_headers(reply.clone(), headers, payload.split_to(PART)).await?;
    }
    Ok(client.publish(reply, payload).await?)
}

async fn answer(store: &dyn EventStore, query: Query) -> Result<Answer, crate::StoreError> {
    let sandboxes = match query {
        Query::LiveOnNode { node, after } => {
            let mut live: Vec<SandboxState> = store
                .live_sandboxes()
                .await?
                .1
                .into_iter()
                .filter(|state| state.node() == Some(&node) && Some(state.id) > after)
                .collect();
            live.sort_by_key(|state| state.id);
            live.truncate(PAGE);
            live
        }
        Query::Exec { id } => return Ok(Answer::Exec(store.exec(id).await?.map(Box::new))),
        Query::Sandbox { id } => store.sandbox(id).await?.into_iter().collect(),
    };
    let mut execs = store.live_execs().await?;
    let records = sandboxes.into_iter().map(|sandbox| SandboxRecord {
        live_execs: execs.extract_if(.., |exec| exec.sandbox == sandbox.id).collect(),
        sandbox,
    });
    Ok(Answer::Sandboxes(records.collect()))
}
