use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use events::{NodeId, without_values};
use futures::StreamExt;
use tokio::task::JoinHandle;

use super::frame::LinkFrame;
use super::stream::{Duplex, not_sent};
use super::{FaultCode, LinkError, LinkFault, LinkRequest, LinkValue};
use crate::{ListenError, Log};

/// The executor's end: takes requests for its node.
pub struct LinkServer {
    client: Client,
    requests: Subscriber,
}

/// A request, and the duty to answer it.
pub struct LinkIncoming {
    /// What is asked.
    pub request: LinkRequest,
    client: Client,
    peer: async_nats::Subject,
    duplex: Option<Duplex>,
    /// Tells the gateway that this is being worked on, until it is accepted or answered.
    working: Option<Working>,
}

impl LinkServer {
    /// Listens for requests to this node.
    pub async fn listen(log: &Log, node: &NodeId) -> Result<Self, ListenError> {
        let client = log.client().clone();
        let requests = client.subscribe(log.subjects().link(node)).await.map_err(|_| ListenError)?;
        Ok(Self { client, requests })
    }

    /// The next request; `None` when the connection is closed for good.
    pub async fn next(&mut self) -> Option<LinkIncoming> {
        loop {
            let message = self.requests.next().await?;
            if let Some(incoming) = self.read(message) {
                return Some(incoming);
            }
        }
    }

    fn read(&self, message: Message) -> Option<LinkIncoming> {
        let peer = message.reply?;
        match serde_json::from_slice(&message.payload) {
            Ok(request) => {
                let request: LinkRequest = request;
                let client = self.client.clone();
                let working = request.tell_working.then(|| Working::begin(client.clone(), peer.clone()));
                Some(LinkIncoming { request, client, peer, duplex: None, working })
            }
            Err(error) => {
                tracing::warn!(error = %without_values(&error), "a link request cannot be read");
                None
            }
        }
    }
}

/// How often it is told that a request is being worked on. Most are answered before that.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Tells it until it is dropped.
struct Working(JoinHandle<()>);

impl Working {
    fn begin(client: Client, peer: async_nats::Subject) -> Self {
        Self(tokio::spawn(async move {
            loop {
                tokio::time::sleep(TELL_EVERY).await;
                if client.publish(peer.clone(), LinkFrame::Working.encode()).await.is_err() {
                    return;
                }
            }
        }))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl LinkIncoming {
    /// Accepts an operation with bytes.
    pub async fn accept(&mut self, head: LinkValue) -> Result<(), LinkError> {
        let inbox = self.client.new_inbox();
        let subscription = self
            .client
            .subscribe(inbox.clone())
            .await
            .map_err(|_| LinkError::Broken("the connection to NATS is closed"))?;
        self.client
            .publish_with_reply(self.peer.clone(), inbox, LinkFrame::Head(head).encode())
            .await
            .map_err(not_sent)?;
        self.working = None;
        self.duplex = Some(Duplex::new(self.client.clone(), subscription, self.peer.clone()));
        Ok(())
    }

    /// Sends bytes; waits while the gateway is behind.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        self.open()?.write(bytes).await
    }

    /// The next bytes; `None` when all have come. Cancel safe.
    pub async fn read(&mut self) -> Result<Option<Bytes>, LinkError> {
        let duplex = self.open()?;
        if let Some(bytes) = duplex.read().await? {
            return Ok(Some(bytes));
        }
        match duplex.last().await? {
            LinkFrame::End { offset } if offset == duplex.received() => Ok(None),
            LinkFrame::End { .. } => Err(LinkError::Broken("bytes were lost on the way")),
            LinkFrame::Cancel => Err(LinkError::Broken("the other end gave up")),
            LinkFrame::Head(_)
            | LinkFrame::Piece { .. }
            | LinkFrame::Credit { .. }
            | LinkFrame::Done { .. }
            | LinkFrame::Fault(_)
            | LinkFrame::Working => Err(LinkError::Broken("a message that does not belong here")),
        }
    }

    /// Shows that this end lives, while it is busy with what came.
    pub async fn keep_alive(&mut self) -> Result<(), LinkError> {
        self.open()?.keep_alive().await
    }

    /// Asks whether somebody still waits for it. Not accepted yet.
    pub async fn still_wanted(&mut self, patience: Duration) -> bool {
        if self.accept(LinkValue::StillWanted).await.is_err() {
            return false;
        }
        match self.open() {
            Ok(duplex) => duplex.hear_within(patience).await.is_ok(),
            Err(_) => false,
        }
    }

    /// Answers, and is done with it.
    pub async fn answer(self, outcome: Result<LinkValue, LinkFault>) {
        let offset = self.duplex.as_ref().map_or(0, Duplex::sent);
        let frame = match outcome {
            Ok(value) => LinkFrame::Done { offset, value },
            Err(fault) => LinkFrame::Fault(fault),
        };
        let mut message = frame.encode();
        let most = self.client.server_info().max_payload;
        if most > 0 && message.len() > most {
            tracing::error!(
                bytes = message.len(),
                most,
                "an answer of the link does not fit a message of NATS"
            );
            message =
                LinkFrame::Fault(LinkFault::new(FaultCode::Internal, "the answer is too long")).encode();
        }
        if let Err(error) = self.client.publish(self.peer, message).await {
            // Whoever asked hears nothing, and gives up on its own.
            tracing::warn!(error = %error, "an answer of the link was not sent");
        }
    }

    fn open(&mut self) -> Result<&mut Duplex, LinkError> {
        self.duplex.as_mut().ok_or(LinkError::Broken("not accepted yet"))
    }
}
