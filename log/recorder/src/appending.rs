use std::sync::Arc;

use bytes::Bytes;
use events::{EventId, ExecState};
use record::{AppendBatch, AppendError, EventStore};
use tokio::task::{JoinError, JoinHandle};
use transport::StreamPlace;

/// A batch that is ready, and who waits for it.
pub(super) struct Drafted {
    pub batch: AppendBatch,
    /// How far execs get by it.
    pub execs: Vec<ExecState>,
    pub probes: Vec<String>,
    pub only: Option<Bytes>,
    pub newest: Option<StreamPlace>,
}

/// A batch that is being appended, beside all else.
pub(super) struct Appending {
    pub task: JoinHandle<Appended>,
    /// What it holds.
    pub ids: Vec<EventId>,
}

pub(super) struct Appended {
    pub drafted: Drafted,
    pub outcome: Result<(), AppendError>,
}

impl Appending {
    pub fn start(store: &Arc<dyn EventStore>, drafted: Drafted) -> Self {
        let ids = drafted.batch.events.iter().map(|event| event.id).collect();
        let store = Arc::clone(store);
        let task = tokio::spawn(async move {
            let outcome = store.append(&drafted.batch).await;
            Appended { drafted, outcome }
        });
        Self { task, ids }
    }
}

/// Waits for the end of what is being appended; then nothing is any more. Cancel safe.
pub(super) async fn ended(appending: &mut Option<Appending>) -> Result<Appended, JoinError> {
    let Some(under_way) = appending else { return std::future::pending().await };
    let appended = (&mut under_way.task).await;
    *appending = None;
    appended
}
