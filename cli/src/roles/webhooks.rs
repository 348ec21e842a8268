//! The deliverer of webhooks.

use ::webhooks::{Webhooks, WebhooksConfig};
use anyhow::Context;
use feed::Feed;
use policy::AddressPolicy;
use tokio_util::sync::CancellationToken;
use transport::Log;

use super::{clock, connect, follow_feed, master_key, open_store};
use crate::config::Config;
use crate::stop;

/// Runs the deliverer of webhooks alone.
pub async fn webhooks(config: Config) -> anyhow::Result<()> {
    super::begin(&config)?;
    let stop = stop::on_signal()?;
    let log = stop::unless_stopped(&stop, connect(&config, "webhooks")).await?;
    let record = stop::unless_stopped(&stop, open_store(&config, None)).await?;
    let feed = stop::unless_stopped(&stop, follow_feed(&log, record)).await?;
    tracing::info!("webhooks ready");
    run_webhooks(&config, &log, &feed, stop).await
}

/// Delivers webhooks until `stop`.
pub async fn run_webhooks(
    config: &Config,
    log: &Log,
    feed: &Feed,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let webhooks_config = WebhooksConfig {
        addresses: addresses(config)?,
        allow_http: config.webhooks.allow_http,
        timeout: config.webhooks.timeout.0,
        give_up_after: config.webhooks.give_up_after.0,
        concurrency: config.webhooks.concurrency as usize,
    };
    let key = master_key(config)?;
    let webhooks = Webhooks::new(webhooks_config, log.clone(), feed.clone(), key, clock(), stop);
    webhooks.context("cannot set up TLS")?.run().await;
    Ok(())
}

/// Which addresses webhooks may call.
pub fn addresses(config: &Config) -> anyhow::Result<AddressPolicy> {
    AddressPolicy::new(&config.webhooks.allow_networks).context("webhooks.allow_networks")
}
