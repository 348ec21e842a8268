//! The way from an exec to the record: all that an outbox and a pump need of the log.

use std::time::Duration;

use bytes::Bytes;
use events::{Event, ExecId, ExecState};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;
use transport::{Log, PendingPublish, PublishError, QueryError};

/// Until a message is durable.
pub type Pending = BoxFuture<'static, Result<(), PublishError>>;

/// # Obligations
///
/// - **In order.** What is stored of the messages that were begun is stored in the order in which they were begun.
/// - **Ok is durable.** After an error the message may be stored all the same.
/// - **The record is true.** What `exec_record` says is recorded, and stays so.
///
/// Everything else may fail: messages and offers may be lost, or come twice and late.
pub trait Way: Clone + Send + Sync + 'static {
    /// Begins to send a batch whose first event is `first`.
    fn begin(&self, first: &Event, batch: Bytes) -> impl Future<Output = Pending> + Send;

    /// Shows the recorder a batch. Until when it should be recorded; `None` where it was not shown.
    fn offer(&self, batch: &Bytes) -> impl Future<Output = Option<Instant>> + Send;

    /// An offer was not recorded in its time.
    fn offered_in_vain(&self);

    /// Whether it is known that no message is taken at the moment.
    fn takes_nothing(&self) -> bool;

    /// Waits until something may be taken again, at most so long.
    fn until_writable(&self, patience: Duration) -> impl Future<Output = ()> + Send;

    /// Does what can be done about a message that failed.
    fn mend(&self, error: &PublishError) -> impl Future<Output = ()> + Send;

    /// What is recorded of an exec; `None` when the record has not heard of it.
    fn exec_record(&self, exec: ExecId)
    -> impl Future<Output = Result<Option<ExecState>, QueryError>> + Send;
}

impl Way for Log {
    async fn begin(&self, first: &Event, batch: Bytes) -> Pending {
        match self.publish_pipelined(first, batch).await {
            Ok(pending) => PendingPublish::wait(pending).boxed(),
            Err(error) => std::future::ready(Err(error)).boxed(),
        }
    }

    async fn offer(&self, batch: &Bytes) -> Option<Instant> {
        self.offer_events(batch).await
    }

    fn offered_in_vain(&self) {
        Self::offered_in_vain(self);
    }

    fn takes_nothing(&self) -> bool {
        self.refusal().is_some()
    }

    async fn until_writable(&self, patience: Duration) {
        Self::until_writable(self, patience).await;
    }

    async fn mend(&self, error: &PublishError) {
        Self::mend(self, error).await;
    }

    async fn exec_record(&self, exec: ExecId) -> Result<Option<ExecState>, QueryError> {
        Self::exec_record(self, exec).await
    }
}
