//! The last of those who end a sandbox in time. The reaper comes first, then its own agent; when neither did, because one is
//! dead and the other has been stopped or replaced, its box is removed here, whatever its agent says.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use events::ErrorChain;

use crate::hosted::Hosted;
use crate::shared::Shared;

/// How long after its deadline a box goes: later than an agent ends it by itself, and soon enough for what is promised.
const GRACE: TimeDelta = TimeDelta::milliseconds(3_000);
/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Watches until it is dropped. It asks nobody: neither agents nor the record.
pub async fn watch(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let now = shared.clock.now();
        for hosted in shared.registry.all() {
            let overdue = hosted.deadline().is_some_and(|deadline| deadline + GRACE <= now);
            if overdue && hosted.begin_ending() {
                tokio::spawn(end(Arc::clone(&shared), hosted));
            }
        }
    }
}

/// Removes the box. Whoever is destroying it, or reconciliation, tells of it.
async fn end(shared: Arc<Shared>, hosted: Arc<Hosted>) {
    while let Err(error) = hosted.provider.destroy(hosted.id).await {
        tracing::warn!(sandbox.id = %hosted.id, error = %ErrorChain(&error), "an overdue box was not removed");
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
    tracing::info!(sandbox.id = %hosted.id, "a sandbox was overdue: its box is removed");
    hosted.set_gone();
}
