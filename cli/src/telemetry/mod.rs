//! Log lines of the server processes, on stderr.

mod lines;
mod shares;

use std::io::IsTerminal;

use anyhow::Context;
use tracing::subscriber::set_global_default;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

pub use lines::{flush, say};

use crate::config::Config;
use lines::Lines;
use shares::Shares;

/// Starts to write log lines. `RUST_LOG`, where set, is over the configuration.
pub fn start(config: &Config) -> anyhow::Result<()> {
    let level = &config.logging.level;
    let filter = match std::env::var("RUST_LOG") {
        Ok(rules) if !rules.is_empty() => EnvFilter::try_new(rules).context("RUST_LOG")?,
        // The libraries below say much that only their authors want to know.
        _ => EnvFilter::try_new(format!(
            "{level},async_nats=warn,sqlx=warn,bollard=warn,hyper=warn,hickory_proto=error"
        ))
        .with_context(|| format!("logging.level: {level:?}"))?,
    };
    let ansi = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let json = config.logging.format == "json";
    let lines = Lines::stderr(if json { missed_json } else { missed })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines)
        .with_ansi(ansi)
        // It would say so on stderr itself, and panic when it cannot.
        .log_internal_errors(false);
    let shares = Shares::default();
    let started = if json {
        set_global_default(builder.json().finish().with(shares.clone()))
    } else {
        set_global_default(builder.finish().with(shares.clone()))
    };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    shares.tell().context("cannot start the thread that tells what is not logged")?;
    // The usual one writes to stderr, and waits for whoever reads it.
    std::panic::set_hook(Box::new(|panic| tracing::error!(panic = %panic, "a bug: a task ended by a panic")));
    match &config.file {
        Some(file) => tracing::info!(file = %file.display(), "configuration read"),
        None => tracing::debug!("there is no configuration file"),
    }
    for remark in &config.remarks {
        tracing::warn!("{remark}");
    }
    Ok(())
}

fn missed(lines: u64) -> String {
    format!("{lines} log lines were lost: nobody read them in time\n")
}

fn missed_json(lines: u64) -> String {
    format!(
        "{{\"level\":\"WARN\",\"fields\":{{\"message\":\"log lines were lost: nobody read them in time\",\"lines\":{lines}}}}}\n"
    )
}
