//! Submits the jobs of schedules when their time has come.
//!
//! When that is, says the crate `calendar`; what is done then, the log: for each time of a schedule the record takes one event that
//! says what was decided, whoever else decides. A job's id follows from the schedule and the time. So each time counts once, however
//! many of these processes run and whenever they die; that a lease lets one of them work only saves the others the trouble.

mod planned;
#[cfg(test)]
mod planned_tests;
mod roster;

use std::sync::Arc;

use events::Clock;
use feed::Feed;
use reactor::{Health, LogOutside, Runtime};
use secrets::MasterKey;
use tokio_util::sync::CancellationToken;
use transport::Log;

use crate::roster::Roster;

/// Submits the jobs of all schedules, as long as no other process does.
pub struct Schedules(Runtime<Roster>);

impl Schedules {
    /// Over this feed, with the key that the gateway has. It does nothing until it runs.
    pub fn new(
        log: Log,
        feed: &Feed,
        master_key: MasterKey,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Self {
        let roster = Roster::new(log.clone(), Arc::clone(feed.store()), Arc::clone(&clock), master_key);
        Self(Runtime::new(roster, LogOutside::new(log, feed.clone()), clock, stop))
    }

    /// How it is doing.
    pub fn health(&self) -> Health {
        self.0.health()
    }

    /// Works until it is told to stop.
    pub async fn run(self) {
        self.0.run().await;
    }
}
