//! Counting what is under way, by whose it is.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// How many of each are under way. What is not is not remembered. Cheap to clone.
#[derive(Debug)]
pub struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One of them, as long as it lives.
pub struct Counted<K: Eq + Hash> {
    of: K,
    all: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Eq + Hash + Clone> Counts<K> {
    /// One more of these, up to `most`; 0: without end.
    pub fn enter(&self, of: &K, most: usize) -> Option<Counted<K>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.get(of).copied().unwrap_or(0);
        if most > 0 && count >= most {
            return None;
        }
        all.insert(of.clone(), count + 1);
        Some(Counted { of: of.clone(), all: Arc::clone(&self.0) })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.of);
            }
        }
    }
}

impl<K: Eq + Hash + fmt::Debug> fmt::Debug for Counted<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "one of {:?}", self.of)
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
    fn no_more_are_let_in_than_there_may_be_and_nothing_is_left_of_what_is_over() {
        let counts = Counts::default();
        let (first, second) = (counts.enter(&"red", 2), counts.enter(&"red", 2));
        assert!(first.is_some() && second.is_some() && counts.enter(&"red", 2).is_none());
        assert!(counts.enter(&"blue", 2).is_some());
        assert!(counts.enter(&"red", 0).is_some(), "0 is no limit");
        drop(first);
        assert!(counts.enter(&"red", 2).is_some());
        drop(second);
        assert!(counts.0.lock().unwrap().is_empty());
    }
}
