use std::collections::HashMap;
use std::hash::Hash;

/// A map that forgets what has not been used for long. It forgets only in [`trim`](Self::trim), never between two uses
/// in one batch.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    hot: HashMap<K, V>,
    cold: HashMap<K, V>,
    capacity: usize,
}

impl<K: Hash + Eq, V> Cache<K, V> {
    /// A cache that keeps at least the `capacity` entries that were used last, and at most about twice as many.
    pub fn new(capacity: usize) -> Self {
        Self { hot: HashMap::new(), cold: HashMap::new(), capacity }
    }

    pub fn contains(&self, key: &K) -> bool {
        self.hot.contains_key(key) || self.cold.contains_key(key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        self.cold.remove(&key);
        self.hot.insert(key, value);
    }

    pub fn get(&mut self, key: &K) -> Option<&V> {
        if let Some((key, value)) = self.cold.remove_entry(key) {
            self.hot.insert(key, value);
        }
        self.hot.get(key)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.hot.remove(key).or_else(|| self.cold.remove(key))
    }

    pub fn trim(&mut self) {
        if self.hot.len() > self.capacity {
            self.cold = std::mem::take(&mut self.hot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_rest_goes() {
        let mut cache = Cache::new(10);
        cache.insert(0, "kept");
        for key in 1..100 {
            cache.insert(key, "other");
            assert_eq!(cache.get(&0), Some(&"kept"));
            cache.trim();
        }
        assert!(cache.contains(&99));
        assert!(!cache.contains(&1));
        assert!(cache.hot.len() + cache.cold.len() <= 22);
    }
}
