//! Delivers for all webhooks, as long as no other process does.

use std::sync::Arc;

use events::Clock;
use feed::Feed;
use reactor::{Health, LogOutside, Runtime};
use secrets::MasterKey;
use tokio_util::sync::CancellationToken;
use transport::Log;

use crate::config::WebhooksConfig;
use crate::desk::Desk;
use crate::errands::Errands;
use crate::sender::Sender;

/// Delivers for all webhooks, as long as no other process does.
pub struct Webhooks(Runtime<Desk>);

impl Webhooks {
    /// A deliverer. It does nothing until it runs.
    pub fn new(
        config: WebhooksConfig,
        log: Log,
        feed: Feed,
        master_key: MasterKey,
        clock: Arc<dyn Clock>,
        stop: CancellationToken,
    ) -> Result<Self, rustls::Error> {
        let outside = LogOutside::new(log.clone(), feed.clone());
        let sender = Sender::new(&config)?;
        let errands = Errands { log, feed, sender, clock: Arc::clone(&clock), master_key };
        Ok(Self(Runtime::new(Desk::new(errands, config), outside, clock, stop)))
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
