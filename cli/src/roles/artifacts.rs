//! The store of what outlives its sandbox.

use anyhow::Context;
use events::ErrorChain;
use objects::Store;

use crate::config::Config;

/// The store as configured. A bucket that cannot be used now may be later: that is said, and stops nothing.
pub fn objects(config: &Config) -> anyhow::Result<Store> {
    let (settings, idle) = config.artifacts.settings(&config.data_dir())?;
    if !idle.is_empty() {
        tracing::warn!(keys = idle.join(", "), "means nothing to the store of artifacts that is configured");
    }
    let store = Store::open(&settings).context("artifacts: the store cannot be opened")?;
    let checked = store.clone();
    tokio::spawn(async move {
        if let Err(error) = checked.check().await {
            tracing::warn!(error = %ErrorChain(&error), "artifacts cannot be kept");
        }
    });
    Ok(store)
}

/// The same for whoever only reads. A directory that cannot be had here is on another host: the rest works without it.
pub fn readable(config: &Config) -> Option<Store> {
    objects(config).inspect_err(|error| tracing::warn!("artifacts cannot be read here: {error:#}")).ok()
}
