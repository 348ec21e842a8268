//! The short way to the record: a small batch of events goes to the recorder over core NATS, and into the stream of events only
//! when it is not recorded soon.
//!
//! Only what somebody else still has may be offered: the agent of a sandbox keeps the output and the end of an exec until they are
//! recorded, and whoever takes a node over begins there. So an offer that nobody hears loses nothing. One that is recorded
//! needs no second write to disk on the way, and no consumer that passes it on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use tokio::time::Instant;

use super::Log;
use super::source::SourceMessage;

/// The largest batch that is offered, in bytes. What is larger is limited by how fast it can be written, not by how soon.
const MOST: usize = 64 << 10;
/// How long the recorder is waited for before the stream is used after all.
const PATIENCE: Duration = Duration::from_millis(25);
/// How long nothing is offered after that was in vain: who waits for a recorder that is not there waits once.
const REST: Duration = Duration::from_secs(1);

/// Whether offers are of use at the moment.
#[derive(Debug)]
pub(super) struct Offering {
    since: Instant,
    /// Until when nothing is offered, in milliseconds.
    rests_until: AtomicU64,
}

impl Default for Offering {
    fn default() -> Self {
        Self { since: Instant::now(), rests_until: AtomicU64::new(0) }
    }
}

impl Offering {
    fn now(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn rests(&self) -> bool {
        self.now() < self.rests_until.load(Ordering::Relaxed)
    }

    fn rest(&self) {
        let until = self.now().saturating_add(u64::try_from(REST.as_millis()).unwrap_or(u64::MAX));
        self.rests_until.store(until, Ordering::Relaxed);
    }
}

impl Log {
    /// Shows the recorder a batch of events of one exec. Until when it should be recorded; `None` where it was not shown: it is too
    /// large, nobody would know who says it, or the recorder has not heard lately.
    pub async fn offer_events(&self, batch: &Bytes) -> Option<Instant> {
        let node = self.node.as_ref()?;
        if batch.len() > MOST || self.offering.rests() || !self.is_connected() {
            return None;
        }
        self.client().publish(self.subjects().offer(node), batch.clone()).await.ok()?;
        Some(Instant::now() + PATIENCE)
    }

    /// An offer was not recorded in its time.
    pub fn offered_in_vain(&self) {
        self.offering.rest();
    }

    /// Listens to what executors offer.
    pub(super) async fn offers(&self) -> Option<Offers> {
        let heard = self.client().subscribe(self.subjects().offers()).await.ok()?;
        Some(Offers { heard, log: self.clone() })
    }
}

/// What executors offer.
pub(super) struct Offers {
    heard: Subscriber,
    log: Log,
}

impl Offers {
    /// The next one. Cancel safe.
    pub async fn next(&mut self) -> SourceMessage {
        while let Some(message) = self.heard.next().await {
            if let Some(offer) = self.read(message) {
                return offer;
            }
        }
        // The connection is closed for good. The stream says so as well.
        std::future::pending().await
    }

    /// The next one, if it is here already.
    pub fn next_ready(&mut self) -> Option<SourceMessage> {
        loop {
            let message = self.heard.next().now_or_never()??;
            if let Some(offer) = self.read(message) {
                return Some(offer);
            }
        }
    }

    fn read(&self, message: Message) -> Option<SourceMessage> {
        let node = self.log.subjects().node_of_offer(&message.subject).map(Arc::from)?;
        (message.payload.len() <= MOST).then_some(SourceMessage {
            place: None,
            payload: message.payload,
            probe: None,
            node: Some(node),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_one_in_vain_nothing_is_offered_for_a_while() {
        let offering = Offering::default();
        assert!(!offering.rests());
        offering.rest();
        assert!(offering.rests());
        tokio::time::advance(REST).await;
        assert!(!offering.rests());
    }
}
