//! Ends what has outlived its time.
//!
//! The reaper is a reconciler: it folds the live sandboxes, and asks executors to destroy what is past its deadline. It destroys
//! nothing itself; of a sandbox that no executor ever took, of which nothing exists but the request, it says that it never ran.
//! Any number of reapers may run, and one of them works. Where two believe that they do, the command's id follows from the
//! sandbox, its deadline and how long that has passed, so JetStream keeps one of many.
//!
//! What time is left is measured on the boot clock from when a deadline was first seen: a clock that is set ends nothing.
//!
//! It also looks after requests that nobody takes: whoever recorded one may have died before its command was sent. The same
//! command is sent again, once; if the first was sent, JetStream drops it.
//!
//! With no reaper at all sandboxes still end: their agents know the deadline. The reaper is what makes the log say so.

mod asking;
mod sandboxes;
#[cfg(test)]
mod tests;
mod watched;

use std::sync::Arc;

use events::Clock;
use feed::Feed;
use reactor::{Health, LogOutside, Runtime};
use tokio_util::sync::CancellationToken;
use transport::Log;

use crate::sandboxes::Sandboxes;

/// Looks at deadlines until it is told to stop, as long as no other reaper does.
pub struct Reaper(Runtime<Sandboxes>);

impl Reaper {
    /// A reaper over this feed. It does nothing until it runs.
    pub fn new(log: Log, feed: &Feed, clock: Arc<dyn Clock>, stop: CancellationToken) -> Self {
        let sandboxes = Sandboxes::new(log.clone(), Arc::clone(feed.store()));
        Self(Runtime::new(sandboxes, LogOutside::new(log, feed.clone()), clock, stop))
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
