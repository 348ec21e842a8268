//! Drives jobs: from their queue through sandboxes and commands to an outcome, by what is recorded.
//!
//! The driver is a reconciler: it folds the jobs that have not ended, with the sandboxes and the execs of the attempts that are
//! under way, and asks for the next step of each. It makes no sandbox and runs no command itself. Any number of drivers may run,
//! and one of them works. Where two believe that they do, the ids of all that they say and ask for follow from the job, the attempt
//! and the step, so the log and the transport keep one of many; and where they come to different ends, the log believes the first.
//!
//! A command is sent only when it is recorded that it was asked for, and an attempt whose command may have begun is never begun
//! again: where nobody can say how it ended, the attempt is lost.

mod asking;
mod decide;
mod driver;
mod effect;
mod entry;
mod fleet;
mod outside;
mod queue;
mod retry;

use std::sync::Arc;
use std::time::Duration;

use events::Clock;
use feed::Feed;
use reactor::{Health, LogOutside, Runtime};
use secrets::MasterKey;
use tokio_util::sync::CancellationToken;
use transport::Log;

use crate::driver::JobDriver;
use crate::fleet::Fleet;
use crate::outside::Real;

/// The pause before it is tried again to listen to nodes.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

/// What the driver is set to.
#[derive(Debug, Clone)]
pub struct JobsConfig {
    /// The greatest number of jobs that are at work at a time, on all nodes together. At least one.
    pub max_running: usize,
}

/// Drives jobs until it is told to stop, as long as no other driver does.
pub struct Jobs {
    runtime: Runtime<JobDriver>,
    log: Log,
    fleet: Fleet,
}

impl Jobs {
    /// A driver over this feed. It does nothing until it runs.
    pub fn new(
        config: JobsConfig,
        log: Log,
        feed: &Feed,
        key: MasterKey,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        let fleet = Fleet::default();
        let outside = Arc::new(Real::new(log.clone(), Arc::clone(feed.store()), key, Arc::clone(&clock)));
        let driver = JobDriver::new(outside, config, fleet.clone());
        let runtime = Runtime::new(driver, LogOutside::new(log.clone(), feed.clone()), clock, stop);
        Self { runtime, log, fleet }
    }

    /// How it is doing.
    pub fn health(&self) -> Health {
        self.runtime.health()
    }

    /// Works until it is told to stop.
    pub async fn run(self) {
        let Self { runtime, log, fleet } = self;
        let listening = async {
            loop {
                listen(&log, &fleet).await;
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        };
        tokio::select! {
            () = runtime.run() => {}
            () = listening => {}
        }
    }
}

/// Takes in what nodes say of themselves, until the connection is closed.
async fn listen(log: &Log, fleet: &Fleet) {
    let Ok(mut heartbeats) = log.heartbeats().await else { return };
    fleet.listen();
    while let Some(heartbeat) = heartbeats.next().await {
        fleet.heard(heartbeat);
    }
}
