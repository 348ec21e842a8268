//! Effects that are under way, a task each.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::timeout;

use crate::{Effecting, Failure};

/// Effects that are under way, a task each. Dropped with all of them.
pub struct EffectRunner<K, T> {
    tasks: JoinSet<Result<T, Failure>>,
    running: HashMap<Id, K>,
    handles: HashMap<K, AbortHandle>,
}

impl<K: Clone + Eq + Hash, T: Send + 'static> EffectRunner<K, T> {
    pub fn new() -> Self {
        Self { tasks: JoinSet::new(), running: HashMap::new(), handles: HashMap::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Begins an effect of an entity that has none under way.
    pub fn begin(&mut self, key: K, effect: Effecting<T>, patience: Duration) {
        let handle = self.tasks.spawn(async move {
            match timeout(patience, effect).await {
                Ok(result) => result,
                Err(_) => Err(Failure::again(format!("it took longer than {} s", patience.as_secs_f32()))),
            }
        });
        self.running.insert(handle.id(), key.clone());
        self.handles.insert(key, handle);
    }

    /// Drops the effect of an entity. That it ended is told like any other end.
    pub fn drop_effect(&self, key: &K) {
        if let Some(handle) = self.handles.get(key) {
            handle.abort();
        }
    }

    /// Drops all effects.
    pub async fn drop_all(&mut self) {
        self.tasks.shutdown().await;
        self.running.clear();
        self.handles.clear();
    }

    /// The next effect that has ended, with its entity; `None` as its result: it was dropped. Cancel safe.
    pub async fn next_ended(&mut self) -> Option<(K, Option<Result<T, Failure>>)> {
        loop {
            let (id, result) = match self.tasks.join_next_with_id().await? {
                Ok((id, result)) => (id, Some(result)),
                Err(error) if error.is_cancelled() => (error.id(), None),
                Err(error) => (error.id(), Some(Err(Failure::again("its task panicked")))),
            };
            if let Some(key) = self.running.remove(&id) {
                self.handles.remove(&key);
                return Some((key, result));
            }
        }
    }
}
