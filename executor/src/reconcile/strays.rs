//! What is there and not live by the record.

use std::time::{Duration, Instant};

use events::{ErrorChain, NodeId, SandboxPhase, SandboxState};

use super::{Found, Look, ReconcileError, hold, runs};

/// How long a box may be unknown to the log: its command may be under way again after a crash.
pub(super) const STRAY_GRACE: Duration = Duration::from_secs(60);
/// The same for a box of our own making, whose request may still be on its way to the record.
pub(super) const UNHEARD_GRACE: Duration = Duration::from_secs(300);

/// What is known of a box that is not live here by the record.
pub(super) struct Stray<'a> {
    pub(super) record: Option<&'a SandboxState>,
    /// Whether this executor has made it or taken it over.
    pub(super) ours: bool,
    pub(super) here: &'a NodeId,
    /// For how long it has been a stray.
    pub(super) unknown_for: Duration,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Leave,
    /// Its request was lost on the way and came after the news that it runs, which counted for nothing.
    TellThatItRuns,
    Remove,
}

impl Stray<'_> {
    pub(super) fn judge(&self) -> Verdict {
        if let (Some(state), true) = (self.record, self.ours)
            && matches!(state.phase, SandboxPhase::Requested)
        {
            return Verdict::TellThatItRuns;
        }
        let ended = self.record.is_some_and(SandboxState::is_terminal);
        let elsewhere = self.record.and_then(SandboxState::node).is_some_and(|node| node != self.here);
        let grace = if self.ours { UNHEARD_GRACE } else { STRAY_GRACE };
        let is_known = self.ours && self.record.is_some();
        if ended || elsewhere || (!is_known && self.unknown_for >= grace) {
            Verdict::Remove
        } else {
            Verdict::Leave
        }
    }
}

impl Look {
    pub(super) async fn at_stray(&self, (provider, handle): Found) -> Result<(), ReconcileError> {
        let (shared, strays, id) = (&self.shared, &self.waiting.strays, self.id);
        if shared.registry.is_creating(id)
            || shared.registry.get(id).is_some_and(|hosted| hosted.is_closing())
        {
            return Ok(());
        }
        let record = shared.log.sandbox_record(id).await?;
        let since = *hold(strays).entry(id).or_insert_with(Instant::now);
        let stray = Stray {
            record: record.as_ref().map(|record| &record.sandbox),
            ours: shared.registry.get(id).is_some(),
            here: &shared.config.node,
            unknown_for: since.elapsed(),
        };
        match (stray.judge(), &record) {
            (Verdict::TellThatItRuns, Some(record)) => {
                runs(shared, &record.sandbox, &handle).await?;
                hold(strays).remove(&id);
                return Ok(());
            }
            (Verdict::Leave | Verdict::TellThatItRuns, _) => return Ok(()),
            (Verdict::Remove, _) => {}
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
