//! How many connections a node has to all of its agents at once. Each is a descriptor of the caller's, and an agent that says
//! nothing keeps one for as long as it is waited for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore};

/// Places in all for each of those kept back for what the node itself asks.
const PER_RESERVED: usize = 12;

/// The connections of a node. A tenant may hold as many as are still free: half of them where it is the only one, and whoever
/// comes next finds some, however many hold all that they may.
#[derive(Clone)]
pub struct Connections(Arc<Node>);

/// What one tenant holds of them.
pub struct Share {
    name: String,
    node: Arc<Node>,
    /// First come, first served.
    turn: Mutex<()>,
    /// A place has become free, this tenant's or another's.
    freed: Notify,
}

/// A place, until it is dropped.
pub(super) enum Held {
    Own(#[allow(dead_code, reason = "held for its drop")] Place),
    Reserved(#[allow(dead_code, reason = "held for its drop")] OwnedSemaphorePermit),
}

pub(super) struct Place(Arc<Share>);

struct Node {
    most: usize,
    reserve: Arc<Semaphore>,
    state: StdMutex<State>,
}

#[derive(Default)]
struct State {
    held: usize,
    /// Who has a share, or a place in one.
    tenants: HashMap<String, (usize, Weak<Share>)>,
}

impl Connections {
    /// So many, a part of which is kept back for the node itself.
    pub fn new(most: usize) -> Self {
        let reserved = (most / PER_RESERVED).max(1);
        Self(Arc::new(Node {
            most: most.saturating_sub(reserved).max(2),
            reserve: Arc::new(Semaphore::new(reserved.min(Semaphore::MAX_PERMITS))),
            state: StdMutex::default(),
        }))
    }

    /// The share of a tenant.
    pub fn of(&self, tenant: &str) -> Arc<Share> {
        let mut state = self.0.state();
        if let Some(share) = state.tenants.get(tenant).and_then(|(_, share)| share.upgrade()) {
            return share;
        }
        let share = Arc::new(Share {
            name: tenant.to_owned(),
            node: Arc::clone(&self.0),
            turn: Mutex::default(),
            freed: Notify::new(),
        });
        state.tenants.insert(share.name.clone(), (0, Arc::downgrade(&share)));
        share
    }
}

impl Node {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// How many the node has for all.
    pub(super) fn most(&self) -> usize {
        self.node.most
    }

    /// Waits for a place. Cancel safe.
    pub(super) async fn take(self: &Arc<Self>) -> Held {
        let _turn = self.turn.lock().await;
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(place) = self.try_take() {
                return Held::Own(place);
            }
            freed.await;
        }
    }

    /// Waits for a place, in the reserve where the tenant has none left, and not behind what else it asks.
    pub(super) async fn take_urgently(self: &Arc<Self>) -> Option<Held> {
        if let Some(place) = self.try_take() {
            return Some(Held::Own(place));
        }
        Some(Held::Reserved(Arc::clone(&self.node.reserve).acquire_owned().await.ok()?))
    }

    fn try_take(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.node.state();
        let free = self.node.most.saturating_sub(state.held);
        let (held, _) = state.tenants.get_mut(&self.name)?;
        if *held >= free {
            return None;
        }
        *held += 1;
        state.held += 1;
        Some(Place(Arc::clone(self)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Share { name, node, .. } = &*self.0;
        let mut state = node.state();
        state.held = state.held.saturating_sub(1);
        if let Some((held, _)) = state.tenants.get_mut(name) {
            *held = held.saturating_sub(1);
        }
        let waiting: Vec<_> = state.tenants.values().filter_map(|(_, share)| share.upgrade()).collect();
        drop(state);
        waiting.iter().for_each(|share| share.freed.notify_one());
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.node.state();
        // Another one may have been made in its place.
        if state.tenants.get(&self.name).is_some_and(|(_, share)| share.strong_count() == 0) {
            state.tenants.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn now<T>(work: impl Future<Output = T>) -> Option<T> {
        match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    fn all(share: &Arc<Share>) -> Vec<Held> {
        std::iter::from_fn(|| now(share.take())).collect()
    }

    #[test]
    fn whoever_comes_next_finds_some_left() {
        let connections = Connections::new(108);
        let tenants: Vec<_> = ["red", "green", "blue", "white"].map(|name| connections.of(name)).into();
        let mut held: Vec<_> = tenants.iter().map(all).collect();
        assert_eq!(held.iter().map(Vec::len).collect::<Vec<_>>(), [50, 25, 12, 6]);
        // What one gives back is for whoever has least.
        held[0].truncate(30);
        assert!(now(tenants[0].take()).is_none());
        assert_eq!(all(&tenants[3]).len(), 10);
        // What the node asks comes through all the same, as far as the reserve goes.
        let urgent: Vec<_> = std::iter::from_fn(|| now(tenants[0].take_urgently()).flatten()).collect();
        assert_eq!(urgent.len(), 9);
        assert!(urgent.iter().all(|place| matches!(place, Held::Reserved(_))));
    }

    #[tokio::test]
    async fn who_waits_is_served_in_turn_and_who_gives_up_is_passed_over() {
        let connections = Connections::new(3);
        let share = connections.of("red");
        let mut held = all(&share);
        assert_eq!(held.len(), 1);
        let (served, mut order) = tokio::sync::mpsc::unbounded_channel();
        let waiting: Vec<_> = (0..4)
            .map(|number| {
                let (share, served) = (Arc::clone(&share), served.clone());
                tokio::spawn(async move {
                    let place = share.take().await;
                    served.send((number, place)).unwrap();
                })
            })
            .collect();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        waiting[0].abort();
        waiting[2].abort();
        held.clear();
        assert_eq!(order.recv().await.map(|(number, _place)| number), Some(1));
        assert_eq!(order.recv().await.map(|(number, _place)| number), Some(3));
    }

    #[test]
    fn nothing_is_kept_of_a_tenant_that_has_gone() {
        let connections = Connections::new(100);
        for name in 0..50 {
            let held = all(&connections.of(&name.to_string()));
            // Another share of the same tenant is the same.
            assert!(now(connections.of(&name.to_string()).take()).is_none());
            drop(held);
        }
        let state = connections.0.state();
        assert_eq!((state.held, state.tenants.len()), (0, 0));
    }
}
