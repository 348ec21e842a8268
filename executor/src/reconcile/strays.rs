//! What is there and not live by the record.

use std::time::{Duration, Instant};

use events::{ErrorChain, SandboxPhase};

use super::{Found, Look, ReconcileError, hold, runs};

/// How long a box may be unknown to the log: its command may be under way again after a crash.
const STRAY_GRACE: Duration = Duration::from_secs(60);
/// The same for a box of our own making, whose request may still be on its way to the record.
const UNHEARD_GRACE: Duration = Duration::from_secs(300);

impl Look {
    pub(super) async fn at_stray(&self, (provider, handle): Found) -> Result<(), ReconcileError> {
        let (shared, strays, id) = (&self.shared, &self.waiting.strays, self.id);
        if shared.registry.is_creating(id)
            || shared.registry.get(id).is_some_and(|hosted| hosted.is_closing())
        {
            return Ok(());
        }
        let record = shared.log.sandbox_record(id).await?;
        let ended = record.as_ref().is_some_and(|record| record.sandbox.is_terminal());
        let elsewhere = record
            .as_ref()
            .and_then(|record| record.sandbox.node())
            .is_some_and(|node| *node != shared.config.node);
        if let Some(record) = &record
            && matches!(record.sandbox.phase, SandboxPhase::Requested)
            && shared.registry.get(id).is_some()
        {
            // Its request was lost on the way and came after the news that it runs, which counted for nothing.
            runs(shared, &record.sandbox, &handle).await?;
            hold(strays).remove(&id);
            return Ok(());
        }
        let since = *hold(strays).entry(id).or_insert_with(Instant::now);
        let ours = shared.registry.get(id).is_some();
        let grace = if ours { UNHEARD_GRACE } else { STRAY_GRACE };
        if !ended && !elsewhere && ((ours && record.is_some()) || since.elapsed() < grace) {
            return Ok(());
        }
        match provider.destroy(id).await {
            Ok(()) => {
                tracing::info!(sandbox.id = %id, "removed a box that is not in the log");
                if let Some(hosted) = shared.registry.get(id) {
                    hosted.set_gone();
                }
                shared.registry.remove(id);
                hold(strays).remove(&id);
            }
            Err(error) => {
                tracing::warn!(sandbox.id = %id, error = %ErrorChain(&error), "a stray box was not removed");
            }
        }
        Ok(())
    }
}
