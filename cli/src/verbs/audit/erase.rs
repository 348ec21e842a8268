use std::process::ExitCode;

use serde_json::json;

use crate::output::{self, Format};
use crate::verbs::error::VerbError;
use client::Client;

#[derive(Debug, Clone, clap::Args)]
pub struct EraseArgs {
    /// Sandbox, destroyed or not.
    #[arg(value_name = "SANDBOX")]
    pub id: String,
}

pub async fn erase(api: &Client, format: Format, args: EraseArgs) -> Result<ExitCode, VerbError> {
    api.erase(&args.id).await?;
    match format {
        Format::Json => output::print_json(&json!({"status": "erased"})),
        Format::Table => output::print(&format!("{}\n", output::plain(&args.id))),
    }
    .map_err(VerbError::output)?;
    Ok(ExitCode::SUCCESS)
}
