use std::time::Duration;

use bytes::Bytes;
use events::NodeId;
use tokio::time::Instant;

use super::frame::LinkFrame;
use super::stream::{Duplex, not_sent};
use super::{LinkError, LinkRequest, LinkValue};
use crate::Log;

/// How long an executor may take to accept.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long nothing may be heard of it meanwhile: it says each second that it is at work.
const QUIET: Duration = Duration::from_secs(5);
/// After how long what changes nothing is asked again: the request, or the answer, may be with a server that is frozen.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// How long it is tried to find an executor that starts an exec.
const START_PATIENCE: Duration = Duration::from_millis(1_500);
/// The pause between two tries, where nobody listens.
const START_PAUSE: Duration = Duration::from_millis(100);
/// How long an executor that took a start may be silent before it is done.
const START_SILENCE: Duration = Duration::from_secs(4);

/// The gateway's end.
#[derive(Clone)]
pub struct LinkClient {
    log: Log,
}

/// An operation with bytes, under way.
pub struct LinkStream {
    /// What the executor said first.
    pub head: LinkValue,
    duplex: Duplex,
    settled: bool,
}

/// A start that an executor took: it is under way, or done.
pub struct Taken {
    /// None: it is done.
    under_way: Option<Duplex>,
}

impl LinkClient {
    /// A client on this connection.
    pub fn new(log: &Log) -> Self {
        Self { log: log.clone() }
    }

    /// A plain call.
    pub async fn call(&self, node: &NodeId, request: &LinkRequest) -> Result<LinkValue, LinkError> {
        let (_, first) = self.begin(node, request).await?;
        match first {
            LinkFrame::Done { value, .. } | LinkFrame::Head(value) => Ok(value),
            LinkFrame::Fault(fault) => Err(fault.into()),
            LinkFrame::Piece { .. }
            | LinkFrame::End { .. }
            | LinkFrame::Credit { .. }
            | LinkFrame::Cancel
            | LinkFrame::Working => Err(LinkError::Broken("an answer that is none")),
        }
    }

    /// An operation with bytes. Dropping the stream before its end cancels the operation.
    pub async fn open(&self, node: &NodeId, request: &LinkRequest) -> Result<LinkStream, LinkError> {
        let (duplex, first) = self.begin(node, request).await?;
        match first {
            LinkFrame::Head(head) => Ok(LinkStream { head, duplex, settled: false }),
            LinkFrame::Fault(fault) => Err(fault.into()),
            LinkFrame::Done { .. }
            | LinkFrame::Piece { .. }
            | LinkFrame::End { .. }
            | LinkFrame::Credit { .. }
            | LinkFrame::Cancel
            | LinkFrame::Working => Err(LinkError::Broken("an answer that is none")),
        }
    }

    /// Asks, and waits for what comes first. An executor of which nothing is heard is given up soon; what changes nothing is asked
    /// again before that, and at once over another connection.
    async fn begin(&self, node: &NodeId, request: &LinkRequest) -> Result<(Duplex, LinkFrame), LinkError> {
        let began = Instant::now();
        let again = request.op.only_reads();
        let mut last = false;
        loop {
            let connection = self.log.connection();
            let mut duplex = self.ask(node, request).await?;
            let patience = if again && !last { AGAIN_AFTER } else { QUIET.saturating_sub(began.elapsed()) };
            let first = tokio::select! {
                first = first(&mut duplex, patience, began + PATIENCE) => first,
                () = self.log.another_connection(connection), if again => None,
            };
            match first {
                Some(first) => return first.map(|first| (duplex, first)),
                None if again && began.elapsed() < QUIET => last = began.elapsed() + AGAIN_AFTER >= QUIET,
                None => return Err(LinkError::Unreachable),
            }
        }
    }

    /// Asks for an exec to be started. Returns when the executor of the node has taken it, soon in any case: where nobody listens
    /// it is tried for a moment, and what was not heard in time is not begun later.
    pub async fn start(&self, node: &NodeId, request: &LinkRequest) -> Result<Taken, LinkError> {
        let until = Instant::now() + START_PATIENCE;
        loop {
            match tokio::time::timeout_at(until, self.start_once(node, request)).await {
                Err(_) => return Err(LinkError::Unanswered),
                Ok(Err(LinkError::Unreachable)) if Instant::now() + START_PAUSE < until => {
                    tokio::time::sleep(START_PAUSE).await;
                }
                Ok(outcome) => return outcome,
            }
        }
    }

    async fn start_once(&self, node: &NodeId, request: &LinkRequest) -> Result<Taken, LinkError> {
        let mut duplex = self.ask(node, request).await?;
        loop {
            match duplex.last().await? {
                LinkFrame::Done { .. } => return Ok(Taken { under_way: None }),
                LinkFrame::Head(LinkValue::StillWanted) => duplex.keep_alive().await?,
                LinkFrame::Head(_) => return Ok(Taken { under_way: Some(duplex) }),
                LinkFrame::Fault(fault) => return Err(fault.into()),
                LinkFrame::Piece { .. }
                | LinkFrame::End { .. }
                | LinkFrame::Credit { .. }
                | LinkFrame::Cancel
                | LinkFrame::Working => return Err(LinkError::Broken("an answer that is none")),
            }
        }
    }

    async fn ask(&self, node: &NodeId, request: &LinkRequest) -> Result<Duplex, LinkError> {
        let client = self.log.client();
        let closed = LinkError::Broken("the connection to NATS is closed");
        let payload =
            serde_json::to_vec(request).map_err(|_| LinkError::Broken("the request cannot be written"))?;
        let inbox = client.new_inbox();
        let Ok(subscription) = client.subscribe(inbox.clone()).await else {
            return Err(closed);
        };
        let subject = self.log.subjects().link(node);
        client.publish_with_reply(subject, inbox, payload.into()).await.map_err(not_sent)?;
        Ok(Duplex::new(client.clone(), subscription, "_".into()))
    }
}

/// What comes first that is an answer, as long as something comes; `None` where nothing does.
async fn first(
    duplex: &mut Duplex,
    mut patience: Duration,
    until: Instant,
) -> Option<Result<LinkFrame, LinkError>> {
    loop {
        match duplex.first() {
            Ok(Some(first)) => return Some(Ok(first)),
            Ok(None) => {}
            Err(error) => return Some(Err(error)),
        }
        let heard =
            tokio::time::timeout_at(until.min(Instant::now() + patience), duplex.hear()).await.ok()?;
        if let Err(error) = heard {
            return Some(Err(error));
        }
        patience = QUIET;
    }
}

impl Taken {
    /// Waits until it is known that it will not begin: it was refused, or its executor went away. Never returns once it is done.
    /// Cancel safe.
    pub async fn failed(&mut self) -> LinkError {
        let Some(duplex) = &mut self.under_way else { return std::future::pending().await };
        let error = match duplex.last_within(START_SILENCE).await {
            Ok(LinkFrame::Done { .. }) => {
                self.under_way = None;
                return std::future::pending().await;
            }
            Ok(LinkFrame::Fault(fault)) => fault.into(),
            Ok(
                LinkFrame::Head(_)
                | LinkFrame::Piece { .. }
                | LinkFrame::End { .. }
                | LinkFrame::Credit { .. }
                | LinkFrame::Cancel
                | LinkFrame::Working,
            ) => LinkError::Broken("an answer that is none"),
            Err(error) => error,
        };
        self.under_way = None;
        error
    }
}

impl LinkStream {
    /// The next bytes; `None` when all have come and the executor says that they were all.
    pub async fn read(&mut self) -> Result<Option<Bytes>, LinkError> {
        match self.duplex.read().await {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => self.settle().await.map(|_| None),
            Err(error) => Err(error),
        }
    }

    /// Sends bytes; waits while the executor is behind.
    pub async fn write(&mut self, bytes: Bytes) -> Result<(), LinkError> {
        self.duplex.write(bytes).await
    }

    /// Keeps a stream alive that has nothing to send for a while, and gives back why it broke: it never ends otherwise.
    /// Cancel safe.
    pub async fn watch(&mut self) -> LinkError {
        self.duplex.watch().await
    }

    /// Says that all bytes are sent, and waits for the outcome.
    pub async fn finish(mut self) -> Result<LinkValue, LinkError> {
        self.duplex.say(&LinkFrame::End { offset: self.duplex.sent() }).await?;
        self.settle().await
    }

    async fn settle(&mut self) -> Result<LinkValue, LinkError> {
        let last = self.duplex.last().await?;
        self.settled = true;
        match last {
            LinkFrame::Done { offset, value } if offset == self.duplex.received() => Ok(value),
            LinkFrame::Done { .. } => Err(LinkError::Broken("bytes were lost on the way")),
            LinkFrame::Fault(fault) => Err(fault.into()),
            LinkFrame::Head(_)
            | LinkFrame::Piece { .. }
            | LinkFrame::End { .. }
            | LinkFrame::Credit { .. }
            | LinkFrame::Cancel
            | LinkFrame::Working => Err(LinkError::Broken("an answer that is none")),
        }
    }
}

impl Drop for LinkStream {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        // Best effort: an executor that does not hear of it notices by the silence.
        self.duplex.cancel();
    }
}
