//! How far execs are recorded, as the recorder says it, and how much of all output is not recorded yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use events::ExecId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use transport::{ExecProgress, ProgressNews};

/// Output of one exec that may be unrecorded, in bytes.
const WINDOW: u64 = 4 << 20;
/// Output of all execs of this node that may be unrecorded, in bytes. An exec with none of its own may always go on, so
/// that nobody starves.
const NODE_WINDOW: u64 = 32 << 20;

/// What is known of the execs that are being pumped.
#[derive(Default)]
pub struct Recorded {
    execs: DashMap<ExecId, watch::Sender<Option<ExecProgress>>>,
    unrecorded: AtomicU64,
}

/// Hears of one exec, until it is dropped.
pub struct Following {
    recorded: Arc<Recorded>,
    exec: ExecId,
    progress: watch::Receiver<Option<ExecProgress>>,
    /// This exec's part of the node's unrecorded output.
    counted: u64,
}

impl Recorded {
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
                });
                std::mem::replace(known, newer) != newer
            });
        }
    }

    /// Hears of an exec from now on. `known` is nothing while the record has not heard of it.
    pub fn follow(self: &Arc<Self>, exec: ExecId, known: Option<ExecProgress>) -> Following {
        let sender = watch::Sender::new(known);
        let progress = sender.subscribe();
        self.execs.insert(exec, sender);
        Following { recorded: Arc::clone(self), exec, progress, counted: 0 }
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
        if unrecorded >= self.counted {
            self.recorded.unrecorded.fetch_add(unrecorded - self.counted, Ordering::AcqRel);
        } else {
            self.recorded.unrecorded.fetch_sub(self.counted - unrecorded, Ordering::AcqRel);
        }
        self.counted = unrecorded;
    }

    /// Whether more may be read.
    pub fn window_is_open(&self) -> bool {
        let others = self.recorded.unrecorded.load(Ordering::Acquire);
        self.counted == 0 || (self.counted < WINDOW && others < NODE_WINDOW)
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.count(0);
        self.recorded.execs.remove(&self.exec);
    }
}
