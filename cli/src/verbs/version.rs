//! `stacyvm version`

use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::VerbError;
use crate::output::{self, Format, plain};
use client::Client;

/// A server that does not answer must not hold up our own version.
const WAIT: Duration = Duration::from_secs(3);

#[derive(Serialize)]
struct Versions {
    client: &'static str,
    server: Option<String>,
    url: String,
}

#[derive(Deserialize)]
struct Health {
    version: String,
}

/// Succeeds without a server too: this program has a version by itself.
pub async fn version(api: &Client, format: Format) -> Result<ExitCode, VerbError> {
    let health = tokio::time::timeout(WAIT, api.get::<Health>(&["health"])).await;
    let server = health.ok().and_then(Result::ok).map(|health| health.version);
    let versions = Versions { client: env!("CARGO_PKG_VERSION"), server, url: api.shown_url() };
    match format {
        Format::Json => output::print_json(&versions),
        Format::Table => output::print(&text(&versions)),
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}

fn text(versions: &Versions) -> String {
    let url = plain(&versions.url);
    match &versions.server {
        Some(server) => format!("client  {}\nserver  {} at {url}\n", versions.client, plain(server)),
        None => format!("client  {}\nserver  none answers at {url}\n", versions.client),
    }
}
