use std::collections::VecDeque;

use events::{Frame, Position, Registry};
use record::{EventFilter, StoreError};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use super::{Feed, FeedError, Recorded, Topic};

/// Events that are read from the store at once.
const PAGE: u32 = 512;
/// The same when bodies come with them, which may be 64 KiB each.
const PAGE_WITH_BODIES: u32 = 64;

/// Reads the log as it is stored: the exact bytes of the events that match, once and in order, first from the store, then
/// live. What does not match is left out by the database; nothing is decoded on the way.
pub struct LogReader {
    feed: Feed,
    topic: Topic,
    filter: EventFilter,
    /// What says what an event is about.
    registry: Registry,
    bodies: bool,
    cursor: Position,
    ready: VecDeque<Frame>,
    /// The page after the ones that are ready, on its way.
    ahead: Option<JoinHandle<Result<Vec<Frame>, StoreError>>>,
    behind: bool,
    live: Option<broadcast::Receiver<std::sync::Arc<Recorded>>>,
}

impl LogReader {
    /// A reader of what matches `filter` after a position. Without `bodies`, frames come without theirs.
    pub(super) fn new(feed: Feed, filter: EventFilter, bodies: bool, after: Position) -> Self {
        let topic = match (filter.exec, filter.sandbox) {
            (Some(exec), _) => Topic::Exec(exec),
            (None, Some(sandbox)) => Topic::Sandbox(sandbox),
            (None, None) => Topic::All,
        };
        // Listening comes before looking: whatever is recorded in between is seen twice, and skipped by its position.
        let live = Some(feed.listen(topic));
        let behind = after < feed.head();
        Self {
            feed,
            topic,
            filter,
            bodies,
            registry: Registry::default(),
            cursor: after,
            ready: VecDeque::new(),
            ahead: None,
            behind,
            live,
        }
    }

    /// The position of the last event that was given: where to go on from.
    pub const fn cursor(&self) -> Position {
        self.cursor
    }

    /// Up to `max` events, at least one, as soon as there is one. Cancel safe.
    pub async fn next(&mut self, max: usize) -> Result<Vec<Frame>, FeedError> {
        loop {
            let frames = self.next_recorded(max).await?;
            if !frames.is_empty() {
                return Ok(frames);
            }
            let Some(live) = self.live.as_mut() else {
                return Err(FeedError::Disconnected);
            };
            match live.recv().await {
                Ok(recorded) => self.take(&recorded),
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return Err(FeedError::Disconnected),
            }
        }
    }

    /// Up to `max` events that need no waiting for anything that has not happened yet. Empty at the live end. Cancel safe.
    pub async fn next_recorded(&mut self, max: usize) -> Result<Vec<Frame>, FeedError> {
        loop {
            while self.ready.is_empty() && self.behind {
                self.read_page().await?;
            }
            if self.ready.len() < max && !self.behind {
                self.take_what_is_here();
            }
            // Too far behind to be told what was missed: what is heard next comes after that, which is in the store.
            if !(self.ready.is_empty() && self.behind) {
                break;
            }
        }
        let count = self.ready.len().min(max);
        let frames: Vec<Frame> = self.ready.drain(..count).collect();
        if let Some(last) = frames.last() {
            self.cursor = last.position;
        }
        Ok(frames)
    }

    fn take_what_is_here(&mut self) {
        while let Some(live) = self.live.as_mut() {
            match live.try_recv() {
                Ok(recorded) => self.take(&recorded),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {
                    self.behind = true;
                    return;
                }
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => return,
            }
        }
    }

    fn take(&mut self, recorded: &Recorded) {
        let last = self.ready.back().map_or(self.cursor, |frame| frame.position);
        if recorded.position() <= last || !self.matches(recorded) {
            return;
        }
        let mut frame = recorded.frame.clone();
        if !self.bodies {
            frame.body = bytes::Bytes::new();
        }
        self.ready.push_back(frame);
    }

    fn matches(&self, recorded: &Recorded) -> bool {
        let event = &recorded.event;
        let EventFilter { tenant, sandbox, exec, subject, types } = &self.filter;
        tenant.as_ref().is_none_or(|tenant| event.tenant == *tenant)
            && sandbox.is_none_or(|sandbox| event.sandbox == Some(sandbox))
            && exec.is_none_or(|exec| event.data.exec() == Some(exec))
            && (subject.is_none() || self.registry.subject(event) == *subject)
            && (types.is_empty() || types.iter().any(|name| name == event.data.type_name()))
    }

    /// Reads the next page, and begins with the one after it while this one is being used.
    async fn read_page(&mut self) -> Result<(), FeedError> {
        let limit = if self.bodies { PAGE_WITH_BODIES } else { PAGE };
        let reading = match &mut self.ahead {
            Some(reading) => reading,
            None => {
                let reading = self.start_reading(self.cursor, limit);
                self.ahead.insert(reading)
            }
        };
        let page = reading.await;
        self.ahead = None;
        let Ok(page) = page else {
            // The runtime stops.
            return Err(FeedError::Disconnected);
        };
        let page = page?;
        // A page that is not full ends at the present: what comes later is announced, and we are listening.
        self.behind = page.len() == limit as usize;
        if self.behind
            && let Some(last) = page.last()
        {
            self.ahead = Some(self.start_reading(last.position, limit));
        }
        self.ready.extend(page);
        Ok(())
    }

    fn start_reading(&self, after: Position, limit: u32) -> JoinHandle<Result<Vec<Frame>, StoreError>> {
        let (store, filter, bodies) = (self.feed.store().clone(), self.filter.clone(), self.bodies);
        tokio::spawn(async move {
            if bodies {
                store.read(&filter, after, limit).await
            } else {
                store.read_headers(&filter, after, limit).await
            }
        })
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        if let Some(reading) = self.ahead.take() {
            reading.abort();
        }
        self.live = None;
        self.feed.forget_if_unheard(self.topic);
    }
}
