use std::collections::VecDeque;
use std::sync::Arc;

use events::Position;
use record::{Record, StoreError};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::{Feed, PAGE, Recorded, Topic};

/// How many events the first page has: the first of them should not wait for many.
const FIRST_PAGE: u32 = 8;
/// How many bytes a page should have, about: a reader whose client has stopped holds one.
const PAGE_BYTES: usize = 512 << 10;

/// Where a reader begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// With what comes from now on.
    Now,
    /// With what follows this position.
    Position(Position),
}

/// Why a reader cannot go on. It can be opened again after the last position it gave.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    /// The store cannot be read.
    #[error("cannot read the event store")]
    Store(#[source] StoreError),
    /// This process is shutting down, or its connection is closed for good.
    #[error("the feed has ended")]
    Disconnected,
}

/// Reads one topic: every event once, in order, first from the store, then live.
pub struct FeedReader {
    feed: Feed,
    topic: Topic,
    cursor: Position,
    backlog: VecDeque<Arc<Recorded>>,
    behind: bool,
    /// How many events the next page has.
    page: u32,
    live: Option<broadcast::Receiver<Arc<Recorded>>>,
}

impl FeedReader {
    pub(super) fn new(feed: Feed, topic: Topic, after: After) -> Self {
        // Listening comes before looking: whatever is recorded in between is seen twice, and skipped by its position.
        let live = Some(feed.listen(topic));
        let (cursor, behind) = match after {
            After::Now => (feed.head(), false),
            After::Position(position) => (position, position < feed.head()),
        };
        Self { feed, topic, cursor, backlog: VecDeque::new(), behind, page: FIRST_PAGE, live }
    }

    /// The position of the last event that was given: where to go on from.
    pub const fn cursor(&self) -> Position {
        self.cursor
    }

    /// The record behind it.
    pub(super) fn record(&self) -> &Record {
        self.feed.record()
    }

    /// The next event, as soon as there is one.
    pub async fn next(&mut self) -> Result<Arc<Recorded>, FeedError> {
        loop {
            if let Some(recorded) = self.backlog.pop_front() {
                self.cursor = recorded.position();
                return Ok(recorded);
            }
            if self.behind {
                self.read_page().await?;
                continue;
            }
            let Some(live) = self.live.as_mut() else {
                return Err(FeedError::Disconnected);
            };
            match live.recv().await {
                Ok(recorded) if recorded.position() <= self.cursor => {}
                Ok(recorded) => {
                    self.cursor = recorded.position();
                    return Ok(recorded);
                }
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return Err(FeedError::Disconnected),
            }
        }
    }

    /// The next event, if it needs no waiting for anything that has not happened yet. `None` at the live end.
    pub async fn next_recorded(&mut self) -> Result<Option<Arc<Recorded>>, FeedError> {
        while self.backlog.is_empty() && self.behind {
            self.read_page().await?;
        }
        let Some(recorded) = self.backlog.pop_front() else {
            return Ok(None);
        };
        self.cursor = recorded.position();
        Ok(Some(recorded))
    }

    async fn read_page(&mut self) -> Result<(), FeedError> {
        let frames = self.feed.store().read(&self.topic.filter(), self.cursor, self.page).await?;
        // A page that is not full ends at the present: what comes later is announced, and we are listening.
        self.behind = frames.len() == self.page as usize;
        let bytes: usize = frames.iter().map(|frame| frame.encoded_len()).sum();
        let mean = bytes / frames.len().max(1);
        self.page = u32::try_from(PAGE_BYTES / mean.max(1)).unwrap_or(PAGE).clamp(FIRST_PAGE, PAGE);
        if let Some(last) = frames.last()
            && self.behind
        {
            // Kept even if the last frames cannot be read by this build, so that the next page moves on.
            self.cursor = last.position;
        }
        self.backlog.extend(frames.into_iter().filter_map(Recorded::decode).map(Arc::new));
        Ok(())
    }
}

impl Drop for FeedReader {
    fn drop(&mut self) {
        self.live = None;
        self.feed.forget_if_unheard(self.topic);
    }
}
