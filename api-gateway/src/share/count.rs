//! Counting what is under way.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// So many are under way. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicUsize>);

/// One of them, as long as it lives.
#[derive(Debug)]
pub struct Counted(Arc<AtomicUsize>);

impl Counter {
    /// One more, up to `most`; 0: without end.
    pub fn enter(&self, most: usize) -> Option<Counted> {
        let most = if most == 0 { usize::MAX } else { most };
        let more = |count| if count < most { Some(count + 1) } else { None };
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Counted(Arc::clone(&self.0)))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of a kind for each of a bounded number of names.
#[derive(Debug)]
pub struct Each<K, V>(Mutex<HashMap<K, V>>);

impl<K, V> Default for Each<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Each<K, V> {
    /// That of this name, made when it is asked for.
    pub fn of(&self, name: &K, make: impl FnOnce() -> V) -> V {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get(name) {
            Some(known) => known.clone(),
            None => all.entry(name.clone()).or_insert_with(make).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_let_in_than_there_may_be() {
        let counter = Counter::default();
        let (first, second) = (counter.enter(2), counter.enter(2));
        assert!(first.is_some() && second.is_some() && counter.enter(2).is_none());
        drop(first);
        assert!(counter.enter(2).is_some());
        assert!(counter.enter(0).is_some(), "0 is no limit");
    }
}
