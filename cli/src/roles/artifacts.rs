//! The store of what outlives its sandbox.

use anyhow::Context;
use events::ErrorChain;
use objects::Store;

use crate::config::Config;

/// The store as configured. A bucket that cannot be used now may be later: that is said, and stops nothing.
pub fn objects(config: &Config) -> anyhow::Result<Store> {
    let settings = config.artifacts.settings(&config.data_dir())?;
    let store = Store::open(&settings).context("artifacts: the store cannot be opened")?;
    let checked = store.clone();
    tokio::spawn(async move {
        if let Err(error) = checked.check().await {
            tracing::warn!(error = %ErrorChain(&error), "artifacts cannot be kept");
        }
    });
    Ok(store)
}
