//! Keeps the leaders of a cluster on one node.
//!
//! A command and what becomes of it go through several streams and consumers, each with a leader of its own. A node that is frozen
//! or dead takes those that it leads out of service until they have another leader, which takes NATS four to nine seconds. Where
//! they are all led by one node, the loss of any other one is hardly noticed, and the loss of that one costs the same.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::response::Response;
use futures::TryStreamExt;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::Log;

/// How often it looks, and how soon again after it had to move a leader or saw none.
const EVERY: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(1);

impl Log {
    /// Moves the leaders of what commands go through to where the stream of events is led, until `stop`. Does nothing where
    /// there is one server.
    pub async fn gather_leaders(&self, stop: CancellationToken) {
        if !self.config.is_cluster() {
            return;
        }
        let gather = async {
            loop {
                sleep(if self.gathered().await { EVERY } else { SOON }).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = gather => {}
        }
    }

    /// Whether all are there; those that are not are asked to go.
    async fn gathered(&self) -> bool {
        let subjects = self.subjects();
        let Some(leader) = self.leader_of(&subjects.events_stream()).await else { return false };
        let commands = subjects.commands_stream();
        let mut gathered = true;
        for stream in [commands.clone(), subjects.spent_stream()] {
            match self.leader_of(&stream).await {
                Some(found) if found == leader => {}
                Some(_) => {
                    gathered = false;
                    self.step_down(&format!("STREAM.LEADER.STEPDOWN.{stream}"), &leader).await;
                }
                None => gathered = false,
            }
        }
        let consumers = async {
            let stream = self.brisk.get_stream_no_info(&commands).await.ok()?;
            stream.consumers().try_collect::<Vec<_>>().await.ok()
        };
        let Some(consumers) = consumers.await else { return false };
        for consumer in consumers {
            let found = consumer.cluster.and_then(|cluster| cluster.leader);
            if found.as_deref() != Some(&leader) {
                gathered = false;
                let subject = format!("CONSUMER.LEADER.STEPDOWN.{commands}.{}", consumer.name);
                self.step_down(&subject, &leader).await;
            }
        }
        gathered
    }

    async fn leader_of(&self, stream: &str) -> Option<String> {
        let stream = self.brisk.get_stream(stream).await.ok()?;
        stream.cached_info().cluster.as_ref()?.leader.clone().filter(|leader| !leader.is_empty())
    }

    async fn step_down(&self, subject: &str, to: &str) {
        let wish = json!({"placement": {"preferred": to}});
        let answer: Result<Response<Value>, _> = self.brisk.request(subject.to_owned(), &wish).await;
        let refused: Option<jetstream::Error> = match answer {
            Ok(Response::Ok(_)) => None,
            Ok(Response::Err { error }) => Some(error),
            Err(error) => {
                tracing::debug!(error = %error, subject, "a leader does not answer");
                return;
            }
        };
        match refused {
            None => tracing::debug!(subject, to, "a leader was moved"),
            Some(error) => tracing::debug!(error = %error, subject, to, "a leader was not moved"),
        }
    }
}
