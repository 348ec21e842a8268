//! What the runtime stands on: a lease, a cursor that outlives processes, and the log as it grows.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use events::Position;
use feed::{EventReader, Feed, FeedError, Recorded};
pub use transport::{CursorError, StoredCursor};
use transport::{Lease, Log};

/// What the runtime stands on.
#[async_trait]
pub trait Outside: Send + Sync + 'static {
    /// Waits until the lease of this name can be had, and takes it. Given back by nobody, it can be had again after `term`.
    async fn take_lease(&self, name: &str, term: Duration) -> Box<dyn Held>;

    /// Where work stands, as it was kept last.
    async fn cursor(&self, name: &str) -> Result<StoredCursor, CursorError>;

    /// Keeps a cursor, durable on return, if nobody has kept another one since `last` was read or kept.
    async fn keep_cursor(
        &self,
        name: &str,
        position: Position,
        last: StoredCursor,
    ) -> Result<StoredCursor, CursorError>;

    /// The events of these types (of all, if none is named) after a position.
    fn events(&self, types: &[&'static str], after: Position) -> Box<dyn Events>;

    /// The position of the newest event that there is.
    fn head(&self) -> Position;
}

/// A lease that is held.
#[async_trait]
pub trait Held: Send {
    /// Keeps it; returns when it is lost. It is polled by the task that decides: who is stuck loses it.
    async fn hold(&mut self);

    /// Gives it back, so that the next one need not wait.
    async fn release(self: Box<Self>);
}

/// Events as they are recorded.
#[async_trait]
pub trait Events: Send {
    /// Up to `max` events, at least one, as soon as there is one. Cancel safe.
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Recorded>>, FeedError>;

    /// Everything up to here has been given, or was not asked for.
    fn passed(&self) -> Position;
}

/// The log itself: leases and cursors on the transport, events from the feed.
#[derive(Clone)]
pub struct LogOutside {
    log: Log,
    feed: Feed,
}

impl LogOutside {
    /// The log over this connection and this feed.
    pub const fn new(log: Log, feed: Feed) -> Self {
        Self { log, feed }
    }
}

#[async_trait]
impl Outside for LogOutside {
    async fn take_lease(&self, name: &str, term: Duration) -> Box<dyn Held> {
        Box::new(self.log.take_lease(name, term).await)
    }

    async fn cursor(&self, name: &str) -> Result<StoredCursor, CursorError> {
        self.log.cursor(name).await
    }

    async fn keep_cursor(
        &self,
        name: &str,
        position: Position,
        last: StoredCursor,
    ) -> Result<StoredCursor, CursorError> {
        self.log.keep_cursor(name, position, last).await
    }

    fn events(&self, types: &[&'static str], after: Position) -> Box<dyn Events> {
        Box::new(self.feed.event_reader(types, after))
    }

    fn head(&self) -> Position {
        self.feed.head()
    }
}

#[async_trait]
impl Held for Lease {
    async fn hold(&mut self) {
        Lease::hold(self).await;
    }

    async fn release(self: Box<Self>) {
        Lease::release(*self).await;
    }
}

#[async_trait]
impl Events for EventReader {
    async fn next(&mut self, max: usize) -> Result<Vec<Arc<Recorded>>, FeedError> {
        EventReader::next(self, max).await
    }

    fn passed(&self) -> Position {
        EventReader::passed(self)
    }
}
