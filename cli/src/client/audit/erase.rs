use std::process::ExitCode;

use reqwest::Method;
use serde_json::Value;

use crate::client::api::Api;
use crate::client::error::ClientError;
use crate::output::{self, Format};

#[derive(Debug, Clone, clap::Args)]
pub struct EraseArgs {
    /// Sandbox, destroyed or not.
    #[arg(value_name = "SANDBOX")]
    pub id: String,
}

pub async fn erase(api: &Api, format: Format, args: EraseArgs) -> Result<ExitCode, ClientError> {
    let url = api.url(&["sandboxes", &args.id, "erase"]);
    let answer: Value = api.fetch(api.request(Method::POST, url)).await?;
    match format {
        Format::Json => output::print_json(&answer),
        Format::Table => output::print(&format!("{}\n", output::plain(&args.id))),
    }
    .map_err(ClientError::output)?;
    Ok(ExitCode::SUCCESS)
}
