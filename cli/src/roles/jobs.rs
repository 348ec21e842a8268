//! The driver of jobs.

use ::jobs::{Jobs, JobsConfig};
use feed::Feed;
use tokio_util::sync::CancellationToken;
use transport::Log;

use super::{clock, connect, follow_feed, master_key, open_store};
use crate::config::Config;
use crate::stop;

/// Runs the driver of jobs alone.
pub async fn jobs(config: Config) -> anyhow::Result<()> {
    super::begin(&config)?;
    let stop = stop::on_signal()?;
    let log = stop::unless_stopped(&stop, connect(&config, "jobs")).await?;
    let record = stop::unless_stopped(&stop, open_store(&config, None)).await?;
    let feed = stop::unless_stopped(&stop, follow_feed(&log, record)).await?;
    tracing::info!("jobs ready");
    driver(&config, &log, &feed, stop)?.run().await;
    Ok(())
}

/// The driver as configured.
pub fn driver(config: &Config, log: &Log, feed: &Feed, stop: CancellationToken) -> anyhow::Result<Jobs> {
    let jobs_config = JobsConfig { max_running: config.jobs.max_running as usize };
    Ok(Jobs::new(jobs_config, log.clone(), feed, master_key(config)?, clock(), stop))
}
