//! Log lines of the server processes, on stderr.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// Starts to write log lines. `RUST_LOG`, where set, is over the configuration.
pub fn start(config: &Config) -> anyhow::Result<()> {
    let level = &config.logging.level;
    let filter = match std::env::var("RUST_LOG") {
        Ok(rules) if !rules.is_empty() => EnvFilter::try_new(rules).context("RUST_LOG")?,
        // The libraries below say much that only their authors want to know.
        _ => EnvFilter::try_new(format!("{level},async_nats=warn,sqlx=warn,bollard=warn,hyper=warn"))
            .with_context(|| format!("logging.level: {level:?}"))?,
    };
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(ansi);
    let started =
        if config.logging.format == "json" { builder.json().try_init() } else { builder.try_init() };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))
}
