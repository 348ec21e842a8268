use std::process::ExitCode;

use serde_json::Value;

use crate::output::{self, Format};
use crate::verbs::error::VerbError;
use client::{Client, Method};

#[derive(Debug, Clone, clap::Args)]
pub struct EraseArgs {
    /// Sandbox, destroyed or not.
    #[arg(value_name = "SANDBOX")]
    pub id: String,
}

pub async fn erase(api: &Client, format: Format, args: EraseArgs) -> Result<ExitCode, VerbError> {
    let url = api.url(&["sandboxes", &args.id, "erase"]);
    let answer: Value = api.fetch(api.request(Method::POST, url)).await?;
    match format {
        Format::Json => output::print_json(&answer),
        Format::Table => output::print(&format!("{}\n", output::plain(&args.id))),
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}
