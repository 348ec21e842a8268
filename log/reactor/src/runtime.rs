//! Holds the lease, and lets a reactor work for as long as it is held.

use std::sync::Arc;
use std::time::Duration;

use events::Clock;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::health::describe;
use crate::tenure::{Over, Tenure};
use crate::{Health, Outside, Reactor};

/// Between two tenures: whatever ended the first one may not be over yet.
const PAUSE: Duration = Duration::from_millis(200);

/// Runs a reactor.
pub struct Runtime<R> {
    reactor: R,
    outside: Arc<dyn Outside>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
    health: Health,
}

impl<R: Reactor> Runtime<R> {
    /// A runtime for this reactor. It does nothing until it runs.
    pub fn new(reactor: R, outside: impl Outside, clock: Arc<dyn Clock>, stop: CancellationToken) -> Self {
        // Not when it first runs: whoever serves the metrics may be asked for them before that.
        describe(reactor.name());
        Self { reactor, outside: Arc::new(outside), clock, stop, health: Health::default() }
    }

    /// How it is doing, also while it runs.
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Works whenever no other replica does, until it is told to stop.
    pub async fn run(mut self) {
        let name = self.reactor.name();
        loop {
            let mut lease = tokio::select! {
                () = self.stop.cancelled() => return,
                lease = self.outside.take_lease(name, self.reactor.term()) => lease,
            };
            tracing::info!(reactor = name, "it is ours to do");
            self.health.update(|status| status.holds = true);
            let mut tenure = Tenure::new(&mut self.reactor, &*self.outside, &*self.clock, &self.health);
            // The lease is kept by the task that decides: if that is stuck, the lease is lost, as it should be.
            let over = tokio::select! {
                () = lease.hold() => Over::Lost,
                over = tenure.work(&self.stop) => over,
            };
            tenure.end(over).await;
            self.health.update(|status| status.holds = false);
            match over {
                Over::Lost => {
                    tracing::warn!(
                        reactor = name,
                        "another process does it now, or NATS was away for too long"
                    );
                }
                Over::Stopped => {
                    lease.release().await;
                    return;
                }
                Over::Disconnected => lease.release().await,
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(PAUSE) => {}
            }
        }
    }
}
