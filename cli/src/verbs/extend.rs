//! `stacyvm extend`

use std::io::stdout;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::error::VerbError;
use super::get::{ORDER, card};
use crate::output::{self, Format, Style};
use client::{Client, Method};

/// Give a sandbox another time to live, counted from now.
#[derive(Debug, Clone, clap::Args)]
pub struct ExtendArgs {
    /// Sandbox.
    pub id: String,
    /// From now on: 30m, 1h30m.
    pub ttl: String,
}

pub async fn extend(api: &Client, format: Format, args: ExtendArgs) -> Result<ExitCode, VerbError> {
    let url = api.url(&["sandboxes", &args.id, "extend"]);
    let value: Value = api.fetch(api.request(Method::POST, url).json(&json!({ "ttl": args.ttl }))).await?;
    match format {
        Format::Json => output::print_json(&value),
        Format::Table => output::print(&card(&value, &ORDER, Style::of(&stdout()))?),
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}
