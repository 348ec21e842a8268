//! What clients send to stdin becomes events, where that is wanted.

use std::collections::VecDeque;

use bytes::Bytes;
use events::{Event, ExecId, ExecInput, encode_batch};
use futures::FutureExt;
use futures::future::BoxFuture;
use secrets::RedactionStream;
use transport::{FaultCode, LinkFault, Log, PendingPublish, PublishError};

use crate::context::Context;
use crate::hosted::Hosted;
use crate::shared::Shared;

/// How many events may be under way. Past that a client that sends faster than it is recorded waits.
const WINDOW: usize = 64;

/// Records one stream of input.
///
/// An event is on its way before the process gets its bytes, and is not waited for: a keystroke takes no longer. When
/// the log takes no more, neither does the process. The end of the stream is answered when all of it is durable. What
/// may be the beginning of a secret is recorded when more has come, or at the end; the process gets it at once.
pub struct Recording {
    log: Log,
    context: Context,
    exec: ExecId,
    masking: RedactionStream,
    under_way: VecDeque<(Event, BoxFuture<'static, Result<(), PublishError>>)>,
}

impl Recording {
    /// `None` where input is not recorded.
    pub fn start(shared: &Shared, context: &Context, hosted: &Hosted, exec: ExecId) -> Option<Self> {
        let redaction = hosted.redaction_of(exec);
        if shared.config.record_input {
            hosted.keep_in_order(exec);
        }
        shared.config.record_input.then(|| Self {
            log: shared.log.clone(),
            context: context.clone(),
            exec,
            masking: RedactionStream::new(&redaction, 0, 0),
            under_way: VecDeque::new(),
        })
    }

    /// Records bytes that are about to be given to the process.
    pub async fn take(&mut self, bytes: &Bytes) -> Result<(), LinkFault> {
        let told = self.masking.push(bytes);
        if !told.is_empty() {
            self.publish(told).await.map_err(|error| unrecorded(&self.context, &error))?;
        }
        Ok(())
    }

    /// Waits until all is durable.
    pub async fn finish(mut self) -> Result<(), LinkFault> {
        let rest = self.masking.flush();
        let finished = async {
            if !rest.is_empty() {
                self.publish(rest).await?;
            }
            while !self.under_way.is_empty() {
                self.settle().await?;
            }
            Ok(())
        };
        finished.await.map_err(|error: PublishError| unrecorded(&self.context, &error))
    }

    async fn publish(&mut self, bytes: Bytes) -> Result<(), PublishError> {
        let event = self.context.event(ExecInput::new(self.exec, bytes));
        let batch = encode_batch(&[event.to_frame()?]);
        let pending = match self.log.publish_pipelined(&event, batch).await {
            Ok(pending) => PendingPublish::wait(pending).boxed(),
            Err(error) => std::future::ready(Err(error)).boxed(),
        };
        self.under_way.push_back((event, pending));
        while self.under_way.len() >= WINDOW {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits for the oldest; one that failed is published again, which takes as long as it takes or fails for good.
    async fn settle(&mut self) -> Result<(), PublishError> {
        let Some((event, pending)) = self.under_way.pop_front() else {
            return Ok(());
        };
        match pending.await {
            Ok(()) => Ok(()),
            Err(_) => self.log.publish(&[event]).await,
        }
    }
}

impl Drop for Recording {
    /// A client that broke off has sent what it sent.
    fn drop(&mut self) {
        let rest = self.masking.flush();
        let mut events: Vec<Event> = self.under_way.drain(..).map(|(event, _)| event).collect();
        if !rest.is_empty() {
            events.push(self.context.event(ExecInput::new(self.exec, rest)));
        }
        if events.is_empty() {
            return;
        }
        let (log, context) = (self.log.clone(), self.context.clone());
        tokio::spawn(async move {
            for event in events {
                if let Err(error) = log.publish(&[event]).await {
                    unrecorded(&context, &error);
                }
            }
        });
    }
}

fn unrecorded(context: &Context, error: &PublishError) -> LinkFault {
    tracing::warn!(sandbox.id = %context.sandbox, error = %error, "input was not recorded");
    LinkFault::new(FaultCode::Unrecorded, "the input was not recorded: nothing can be at the moment")
}
