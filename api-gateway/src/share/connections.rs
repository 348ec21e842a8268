//! Open connections: how many there may be, and who has to go when there are too many.
//!
//! Whoever says nothing goes first: a connection on which no request is under way is closed in favour of a new one, the one
//! that has been silent for longest. Where all of them are busy, a few more are let in, whose requests are carried out only
//! where they are for health or an operator's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::denied::source_name;
use crate::limits::Limits;
use crate::metrics::CONNECTIONS_CLOSED;

/// How many that were told to close may be doing so, beside those that count.
const SPARE: usize = 16;

/// All connections of a gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Connections {
    registry: Arc<Mutex<Registry>>,
    most: usize,
    most_of_source: usize,
    reserve: usize,
    /// One for each socket, also of those that were told to close and have not done so yet.
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Registry {
    open: HashMap<u64, Entry>,
    of_source: HashMap<String, usize>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    source: String,
    /// Requests under way: one at most, and whatever its connection became.
    busy: usize,
    /// Since when there is none.
    silent_since: Instant,
    cut: CancellationToken,
}

/// One connection, as long as it is open.
#[derive(Debug)]
pub struct Connection {
    all: Connections,
    id: u64,
    cut: CancellationToken,
    _place: Option<OwnedSemaphorePermit>,
}

/// A request that is under way on a connection.
#[derive(Debug)]
pub struct Busy(Arc<Connection>);

impl Connections {
    /// None yet, with these limits.
    pub fn new(limits: &Limits) -> Self {
        let unlimited = |limit: usize| if limit == 0 { usize::MAX } else { limit };
        let most = unlimited(limits.connections);
        let sockets = most.saturating_add(limits.reserved_connections).saturating_add(SPARE);
        Self {
            registry: Arc::default(),
            most,
            most_of_source: unlimited(limits.connections_per_address),
            reserve: limits.reserved_connections,
            places: Arc::new(Semaphore::new(sockets.min(Semaphore::MAX_PERMITS))),
        }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there may be one more socket. Connections arrive faster than others close: whoever accepted all of them at once
    /// would have more open than it counts.
    pub async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Closes the one that has been silent for longest: descriptors have run out.
    pub fn make_room(&self) {
        self.registry().close_silent(None);
    }

    /// Takes a new connection, in the place of a silent one if need be; `None` where there is no place.
    pub fn open(&self, address: IpAddr, place: Option<OwnedSemaphorePermit>) -> Option<Arc<Connection>> {
        let source = source_name(address);
        let mut registry = self.registry();
        let of_source = registry.of_source.get(&source).copied().unwrap_or(0);
        if of_source >= self.most_of_source && !registry.close_silent(Some(&source))
            || registry.open.len() >= self.most && !registry.close_silent(None)
        {
            let most = self.most.saturating_add(self.reserve);
            let most_of_source = self.most_of_source.saturating_add(self.reserve);
            let of_source = registry.of_source.get(&source).copied().unwrap_or(0);
            if registry.open.len() >= most || of_source >= most_of_source {
                closed("refused");
                return None;
            }
        }
        let (id, cut) = (registry.next, CancellationToken::new());
        registry.next += 1;
        *registry.of_source.entry(source.clone()).or_default() += 1;
        let entry = Entry { source, busy: 0, silent_since: Instant::now(), cut: cut.clone() };
        registry.open.insert(id, entry);
        Some(Arc::new(Connection { all: self.clone(), id, cut, _place: place }))
    }
}

impl Registry {
    /// Closes the connection that has been silent for longest; `false` where all are busy.
    fn close_silent(&mut self, source: Option<&str>) -> bool {
        let silent = self
            .open
            .iter()
            .filter(|(_, entry)| entry.busy == 0 && source.is_none_or(|source| entry.source == source))
            .min_by_key(|(id, entry)| (entry.silent_since, **id));
        let Some(id) = silent.map(|(id, _)| *id) else { return false };
        if let Some(entry) = self.forget(id) {
            entry.cut.cancel();
            closed("silent");
        }
        true
    }

    fn forget(&mut self, id: u64) -> Option<Entry> {
        let entry = self.open.remove(&id)?;
        if let Some(count) = self.of_source.get_mut(&entry.source) {
            *count -= 1;
            if *count == 0 {
                self.of_source.remove(&entry.source);
            }
        }
        Some(entry)
    }
}

fn closed(why: &'static str) {
    metrics::counter!(CONNECTIONS_CLOSED, "why" => why).increment(1);
}

impl Connection {
    /// Cancelled when it has to make room.
    pub const fn cut(&self) -> &CancellationToken {
        &self.cut
    }

    /// A request begins on it.
    pub fn begin(self: &Arc<Self>) -> Busy {
        if let Some(entry) = self.all.registry().open.get_mut(&self.id) {
            entry.busy += 1;
        }
        Busy(Arc::clone(self))
    }
}

impl Busy {
    /// Whether it is one of those beyond the limits, who are here for health and operators.
    pub fn is_reserved(&self) -> bool {
        let connection = &self.0;
        let registry = connection.all.registry();
        let Some(entry) = registry.open.get(&connection.id) else { return false };
        let busy = |source: Option<&str>| {
            let older = registry.open.iter().filter(|(id, other)| {
                **id < connection.id && other.busy > 0 && source.is_none_or(|source| other.source == source)
            });
            older.count()
        };
        let full = registry.open.len() > connection.all.most && busy(None) >= connection.all.most;
        let of_source = registry.of_source.get(&entry.source).copied().unwrap_or(0);
        full || of_source > connection.all.most_of_source
            && busy(Some(&entry.source)) >= connection.all.most_of_source
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(entry) = self.0.all.registry().open.get_mut(&self.0.id) {
            entry.busy -= 1;
            entry.silent_since = Instant::now();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.registry().forget(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(most: usize, of_source: usize, reserve: usize) -> Connections {
        Connections::new(&Limits {
            connections: most,
            connections_per_address: of_source,
            reserved_connections: reserve,
            ..Limits::default()
        })
    }

    impl Connections {
        fn opened(&self, address: IpAddr) -> Option<Arc<Connection>> {
            self.open(address, None)
        }
    }

    fn address(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_silence_makes_room() {
        let all = connections(3, 0, 0);
        let open: Vec<_> = (1..=3).map(|n| all.opened(address(n)).unwrap()).collect();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        // The first has just had an answer, the second is being served.
        drop(open[0].begin());
        let busy = open[1].begin();
        let fourth = all.opened(address(4)).unwrap();
        let cut = |connection: &Arc<Connection>| connection.cut().is_cancelled();
        assert_eq!(open.iter().map(cut).collect::<Vec<_>>(), [false, false, true]);
        let fifth = all.opened(address(5)).unwrap();
        assert!(cut(&open[0]) && !cut(&fourth), "the older silence");
        let (four, five) = (fourth.begin(), fifth.begin());
        assert!(all.opened(address(6)).is_none(), "all of them are busy, and nothing is in reserve");
        drop((four, five, busy));
        assert!(all.opened(address(6)).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_takes_no_places_of_another() {
        let all = connections(4, 2, 0);
        let other = all.opened(address(9)).unwrap();
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        let greedy: Vec<_> = (0..50).map(|_| all.opened(address(1)).unwrap()).collect();
        assert!(!other.cut().is_cancelled());
        assert_eq!(greedy.iter().filter(|one| !one.cut().is_cancelled()).count(), 2);
    }

    #[tokio::test]
    async fn what_is_in_reserve_knows_it_and_is_promoted_when_a_place_is_free() {
        for all in [connections(2, 0, 1), connections(0, 2, 1)] {
            let open: Vec<_> = (0..2).map(|_| all.opened(address(1)).unwrap()).collect();
            let mut busy: Vec<_> = open.iter().map(Connection::begin).collect();
            let third = all.opened(address(1)).unwrap();
            assert!(all.opened(address(1)).is_some(), "it takes the place of the third, which is silent");
            assert!(third.cut().is_cancelled());
            let third = all.opened(address(1)).unwrap();
            let served = third.begin();
            assert!(served.is_reserved() && !busy[0].is_reserved());
            assert!(all.opened(address(1)).is_none());
            busy.pop();
            assert!(!served.is_reserved(), "there is a place again");
        }
    }

    #[tokio::test]
    async fn nothing_is_left_of_what_was_closed() {
        let all = connections(8, 0, 0);
        let open: Vec<_> = (0..100).filter_map(|n| all.opened(address(n))).collect();
        let busy = open[99].begin();
        drop((open, busy));
        let registry = all.registry();
        assert!(registry.open.is_empty() && registry.of_source.is_empty());
    }

    #[tokio::test]
    async fn a_place_is_taken_until_the_connection_is_really_closed() {
        let all = connections(2, 0, 1);
        let mut open = Vec::new();
        for n in 0..3 + SPARE {
            let place = all.place().await;
            open.push(all.open(address(u8::try_from(n % 200).unwrap()), place).unwrap());
        }
        // Most of them have been told to close, and none has done so.
        assert!(open[0].cut().is_cancelled());
        let place = all.place();
        tokio::pin!(place);
        assert!(futures::poll!(place.as_mut()).is_pending());
        open.remove(0);
        assert!(place.await.is_some());
        // Without a limit nobody waits.
        assert!(connections(0, 0, 1).place().await.is_some());
    }

    #[tokio::test]
    async fn who_is_silent_makes_room_when_descriptors_run_out() {
        let all = connections(8, 0, 0);
        let open: Vec<_> = (0..2).map(|n| all.opened(address(n)).unwrap()).collect();
        let _busy = open[0].begin();
        all.make_room();
        all.make_room();
        assert!(!open[0].cut().is_cancelled() && open[1].cut().is_cancelled());
    }
}
