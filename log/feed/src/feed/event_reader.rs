use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use events::{Frame, Position};
use record::{EventFilter, StoreError};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::JoinHandle;

use super::{Feed, FeedError, Recorded, Topic};

/// How many events are read from the store at once. They come without bodies, so a page is small.
const PAGE: u32 = 256;

type Reading = JoinHandle<Result<Vec<Frame>, StoreError>>;

/// Reads the events of some types, decoded, once each and in order: first from the store, then live.
///
/// Unlike [`FeedReader`](super::FeedReader) it leaves out in the database what nobody asked for, and knows how far it has
/// looked even where nothing matched, so that whoever keeps a cursor can move it past what is not for him. What is read from
/// the store comes without its body; a reader of output wants [`OutputReader`](super::OutputReader).
pub struct EventReader {
    feed: Feed,
    filter: EventFilter,
    /// The same types; none: all of them.
    types: HashSet<&'static str>,
    /// Everything up to here was looked at.
    passed: Position,
    ready: VecDeque<Arc<Recorded>>,
    /// A page on its way, and the head before it was asked for. It goes on when whoever waits for it looks away in between.
    reading: Option<(Position, Reading)>,
    behind: bool,
    live: Option<broadcast::Receiver<Arc<Recorded>>>,
}

impl EventReader {
    pub(super) fn new(feed: Feed, types: &[&'static str], after: Position) -> Self {
        // Listening comes before looking: whatever is recorded in between is seen twice, and skipped by its position.
        let live = Some(feed.listen(Topic::All));
        let filter = EventFilter {
            types: types.iter().map(|name| (*name).to_owned()).collect(),
            ..EventFilter::default()
        };
        let behind = after < feed.head();
        let types = types.iter().copied().collect();
        Self { feed, filter, types, passed: after, ready: VecDeque::new(), reading: None, behind, live }
    }

    /// Everything up to here has been given, or is not of the types that were asked for.
    pub fn passed(&self) -> Position {
        match self.ready.front() {
            Some(next) => Position(next.position().0.saturating_sub(1)),
            None => self.passed,
        }
    }

    /// Up to `max` events, at least one, as soon as there is one. Cancel safe.
    pub async fn next(&mut self, max: usize) -> Result<Vec<Arc<Recorded>>, FeedError> {
        loop {
            while self.ready.is_empty() && self.behind {
                self.read_page().await?;
            }
            self.take_what_is_here(max);
            if !self.ready.is_empty() {
                let count = self.ready.len().min(max.max(1));
                return Ok(self.ready.drain(..count).collect());
            }
            if self.behind {
                continue;
            }
            let Some(live) = self.live.as_mut() else {
                return Err(FeedError::Disconnected);
            };
            match live.recv().await {
                Ok(recorded) => self.take(recorded),
                Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => return Err(FeedError::Disconnected),
            }
        }
    }

    fn take_what_is_here(&mut self, max: usize) {
        while !self.behind && self.ready.len() < max {
            let Some(live) = self.live.as_mut() else { return };
            match live.try_recv() {
                Ok(recorded) => self.take(recorded),
                Err(TryRecvError::Lagged(_)) => self.behind = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn take(&mut self, recorded: Arc<Recorded>) {
        if recorded.position() <= self.passed {
            return;
        }
        self.passed = recorded.position();
        if self.types.is_empty() || self.types.contains(recorded.event.data.type_name()) {
            self.ready.push_back(recorded);
        }
    }

    async fn read_page(&mut self) -> Result<(), FeedError> {
        let (head, reading) = match &mut self.reading {
            Some((head, reading)) => (*head, reading),
            None => {
                // Before the store is asked: it has at least everything up to here.
                let head = self.feed.head();
                let (store, filter, after) =
                    (Arc::clone(self.feed.store()), self.filter.clone(), self.passed);
                let task = tokio::spawn(async move { store.read_headers(&filter, after, PAGE).await });
                let (_, reading) = self.reading.insert((head, task));
                (head, reading)
            }
        };
        let page = reading.await;
        self.reading = None;
        // Only the end of the runtime ends such a task early.
        let frames = page.map_err(|_| FeedError::Disconnected)??;
        // A page that is not full ends at the present: what comes later is announced, and we are listening.
        self.behind = frames.len() == PAGE as usize;
        match frames.last() {
            Some(last) if self.behind => self.passed = last.position,
            Some(last) => self.passed = self.passed.max(last.position).max(head),
            None => self.passed = self.passed.max(head),
        }
        self.ready.extend(frames.into_iter().filter_map(Recorded::decode).map(Arc::new));
        Ok(())
    }
}

impl Drop for EventReader {
    fn drop(&mut self) {
        if let Some((_, reading)) = self.reading.take() {
            reading.abort();
        }
        self.live = None;
        self.feed.forget_if_unheard(Topic::All);
    }
}
