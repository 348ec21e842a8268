//! Questions that executors put to the record: they hold no database credentials, the recorder answers.

use std::time::Duration;

use async_nats::{Client, Subject, Subscriber};
use bytes::Bytes;
use events::{ExecId, ExecState, NodeId, SandboxId, SandboxState, without_values};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use crate::{ListenError, Log};

/// Sandboxes an answer. Whoever gets fewer has got the last.
pub const SANDBOXES_A_PAGE: usize = 200;

/// What an executor asks the record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "snake_case")]
pub enum Query {
    /// Which sandboxes are live on a node, in the order of their ids? Answered by [`Answer::Sandboxes`].
    LiveOnNode {
        /// Which node.
        node: NodeId,
        /// Only those after this one.
        after: Option<SandboxId>,
    },
    /// What is known of a sandbox? Answered by [`Answer::Sandboxes`], with one or none.
    Sandbox {
        /// Its id.
        id: SandboxId,
    },
    /// What is known of an exec? Answered by [`Answer::Exec`].
    Exec {
        /// Its id.
        id: ExecId,
    },
}

/// What the record says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Sandboxes, at most [`SANDBOXES_A_PAGE`].
    Sandboxes(Vec<SandboxRecord>),
    /// An exec, if there is one.
    Exec(Option<Box<ExecState>>),
    /// It cannot say, in words for a log.
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
    /// Its execs that have not ended, or whose output is open.
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
            let last = page.len() < SANDBOXES_A_PAGE;
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
        match self.request(&Query::Exec { id }).await? {
            Answer::Exec(exec) => Ok(exec.map(|exec| *exec)),
            Answer::Failed(why) => Err(QueryError::Failed(why)),
            Answer::Sandboxes(_) => Err(QueryError::Failed("an answer to another question".to_owned())),
        }
    }

    async fn ask_sandboxes(&self, query: &Query) -> Result<Vec<SandboxRecord>, QueryError> {
        match self.request(query).await? {
            Answer::Sandboxes(records) => Ok(records),
            Answer::Failed(why) => Err(QueryError::Failed(why)),
            Answer::Exec(_) => Err(QueryError::Failed("an answer to another question".to_owned())),
        }
    }

    async fn request(&self, query: &Query) -> Result<Answer, QueryError> {
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

/// The questions of all executors. Any number of recorders may take them; each is given to one.
pub struct QueryRequests(Client, Subscriber);

/// Somebody who waits for an answer.
pub struct Asker {
    client: Client,
    inbox: Subject,
}

impl Log {
    /// Listens for questions.
    pub async fn queries(&self) -> Result<QueryRequests, ListenError> {
        let subscribed = self.client().queue_subscribe(self.subjects().query(), "recorder".to_owned()).await;
        subscribed.map(|requests| QueryRequests(self.client().clone(), requests)).map_err(|_| ListenError)
    }
}

impl QueryRequests {
    /// The next one, or what is wrong with it, and who asks; `None` when the connection is closed for good. Cancel safe.
    pub async fn next(&mut self) -> Option<(Result<Query, String>, Asker)> {
        loop {
            let message = self.1.next().await?;
            // Where nobody waits for an answer there is nothing to ask.
            let Some(inbox) = message.reply else { continue };
            let query = serde_json::from_slice(&message.payload).map_err(|error| without_values(&error));
            return Some((query, Asker { client: self.0.clone(), inbox }));
        }
    }
}

impl Asker {
    /// Sends the answer, in as many messages as it takes. What is lost is asked again.
    pub async fn answer(self, answer: &Answer) {
        if let Err(error) = self.send(answer).await {
            tracing::warn!(error = %error, "an answer to an executor was not sent");
        }
    }

    async fn send(self, answer: &Answer) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut payload = Bytes::from(serde_json::to_vec(answer)?);
        while payload.len() > PART {
            let mut headers = async_nats::HeaderMap::new();
            headers.insert(MORE, "1");
            let part = payload.split_to(PART);
            self.client.publish_with_headers(self.inbox.clone(), headers, part).await?;
        }
        Ok(self.client.publish(self.inbox, payload).await?)
    }
}
