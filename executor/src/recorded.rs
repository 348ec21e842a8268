//! How far execs are recorded, as the recorder says it, and how much of all output is not recorded yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use events::{ExecId, TenantId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transport::{ExecProgress, ProgressNews};

use crate::neighbours::Neighbours;

/// Output of one exec that may be unrecorded, in bytes.
const WINDOW: u64 = 4 << 20;
/// Output of all execs of this node that may be unrecorded, in bytes. An exec with none of its own may always go on, so
/// that nobody starves.
const NODE_WINDOW: u64 = 32 << 20;
/// The same of all execs of one tenant while others work on the node too: what they have to say waits behind it.
const WINDOW_AMONG_OTHERS: u64 = 512 << 10;

/// What is known of the execs that are being pumped.
#[derive(Default)]
pub struct Recorded {
    execs: DashMap<ExecId, watch::Sender<Option<ExecProgress>>>,
    unrecorded: AtomicU64,
    of_tenants: DashMap<TenantId, Arc<AtomicU64>>,
    neighbours: Arc<Neighbours>,
}

/// Hears of one exec, until it is dropped.
pub struct Following {
    recorded: Arc<Recorded>,
    exec: ExecId,
    tenant: TenantId,
    /// What all execs of the tenant have.
    tenants: Arc<AtomicU64>,
    progress: watch::Receiver<Option<ExecProgress>>,
    /// This exec's part of the node's unrecorded output.
    counted: u64,
}

impl Recorded {
    pub fn new(neighbours: &Arc<Neighbours>) -> Self {
        Self { neighbours: Arc::clone(neighbours), ..Self::default() }
    }

    /// Passes on what the recorder says, until `stop`.
    pub async fn listen(self: Arc<Self>, mut news: ProgressNews, stop: CancellationToken) {
        loop {
            let heard = tokio::select! {
                () = stop.cancelled() => return,
                heard = news.next() => heard,
            };
            let Some(heard) = heard else { return };
            for (exec, progress) in heard {
                self.note(exec, progress);
            }
        }
    }

    /// Progress never goes back, in whatever order it is heard.
    pub fn note(&self, exec: ExecId, progress: ExecProgress) {
        if let Some(sender) = self.execs.get(&exec) {
            sender.send_if_modified(|known| {
                let old = known.unwrap_or_default();
                let newer = Some(ExecProgress {
                    stdout_bytes: old.stdout_bytes.max(progress.stdout_bytes),
                    stderr_bytes: old.stderr_bytes.max(progress.stderr_bytes),
                    ended: old.ended || progress.ended,
                    over: old.over || progress.over,
                });
                std::mem::replace(known, newer) != newer
            });
        }
    }

    /// Hears of an exec from now on. `known` is nothing while the record has not heard of it.
    pub fn follow(
        self: &Arc<Self>,
        (tenant, exec): (&TenantId, ExecId),
        known: Option<ExecProgress>,
    ) -> Following {
        let sender = watch::Sender::new(known);
        let progress = sender.subscribe();
        self.execs.insert(exec, sender);
        let tenants = Arc::clone(&self.of_tenants.entry(tenant.clone()).or_default());
        Following { recorded: Arc::clone(self), exec, tenant: tenant.clone(), tenants, progress, counted: 0 }
    }
}

impl Following {
    /// What is recorded; nothing while the record has not heard of the exec.
    pub fn progress(&self) -> Option<ExecProgress> {
        *self.progress.borrow()
    }

    /// Waits until more is recorded than was last waited for. Cancel safe.
    pub async fn changed(&mut self) {
        if self.progress.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Passes on what was learned by asking.
    pub fn note(&self, progress: ExecProgress) {
        self.recorded.note(self.exec, progress);
    }

    /// Says how much of this exec is unrecorded now.
    pub fn count(&mut self, unrecorded: u64) {
        for sum in [&self.recorded.unrecorded, &*self.tenants] {
            if unrecorded >= self.counted {
                sum.fetch_add(unrecorded - self.counted, Ordering::AcqRel);
            } else {
                sum.fetch_sub(self.counted - unrecorded, Ordering::AcqRel);
            }
        }
        self.counted = unrecorded;
    }

    /// Whether more may be read.
    pub fn window_is_open(&self) -> bool {
        if self.counted == 0 {
            return true;
        }
        let all = self.recorded.unrecorded.load(Ordering::Acquire);
        let has_others = || self.recorded.neighbours.has_others_than(&self.tenant);
        self.counted < WINDOW
            && all < NODE_WINDOW
            && (self.tenants.load(Ordering::Acquire) < WINDOW_AMONG_OTHERS || !has_others())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.count(0);
        self.recorded.execs.remove(&self.exec);
        // The map's and this one: nobody else of the tenant.
        self.recorded.of_tenants.remove_if(&self.tenant, |_, sum| Arc::strong_count(sum) <= 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_may_be_far_ahead_alone_and_not_among_others() {
        let (red, blue): (TenantId, TenantId) = ("red".parse().unwrap(), "blue".parse().unwrap());
        let neighbours = Arc::default();
        let recorded = Arc::new(Recorded::new(&neighbours));
        let mut execs: Vec<_> = (0..3).map(|_| recorded.follow((&red, ExecId::new()), None)).collect();
        neighbours.note(&red);
        execs[0].count(WINDOW_AMONG_OTHERS / 2);
        execs[1].count(WINDOW_AMONG_OTHERS / 2);
        assert!(execs[0].window_is_open(), "alone");
        neighbours.note(&blue);
        assert!(!execs[0].window_is_open());
        assert!(execs[2].window_is_open(), "one with nothing unrecorded goes on");
        let mut other = recorded.follow((&blue, ExecId::new()), None);
        other.count(1);
        assert!(other.window_is_open(), "what the first tenant has is not the second one's");
        execs[1].count(0);
        assert!(execs[0].window_is_open());
        drop(execs);
        assert_eq!((recorded.of_tenants.len(), recorded.unrecorded.load(Ordering::Acquire)), (1, 1));
        drop(other);
        assert!(recorded.of_tenants.is_empty());
    }
}
