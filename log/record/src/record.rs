use std::ops::Deref;
use std::sync::Arc;

use crate::{DataKeys, EventStore, Evidence, OutputBytes, Upkeep};

/// A store in its parts, so that each process, and each test double, has only those that it needs. It is an event store
/// before all, and stands for one wherever that is enough.
#[derive(Debug, Clone)]
pub struct Record {
    /// Events and read models.
    pub store: Arc<dyn EventStore>,
    /// What execs wrote.
    pub output: Arc<dyn OutputBytes>,
    /// The keys that it is sealed under.
    pub keys: Arc<dyn DataKeys>,
    /// What is stored, as it is.
    pub evidence: Arc<dyn Evidence>,
    /// What keeps it in order.
    pub upkeep: Arc<dyn Upkeep>,
}

impl Record {
    /// The parts of what has all of them.
    pub fn of<S>(store: S) -> Self
    where
        S: EventStore + OutputBytes + DataKeys + Evidence + Upkeep,
    {
        let store = Arc::new(store);
        Self {
            store: store.clone(),
            output: store.clone(),
            keys: store.clone(),
            evidence: store.clone(),
            upkeep: store,
        }
    }

    /// See [`Upkeep::close`].
    pub async fn close(&self) {
        self.upkeep.close().await;
    }
}

impl Deref for Record {
    type Target = dyn EventStore;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}
