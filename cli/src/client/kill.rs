//! `stacyvm kill`

use std::process::ExitCode;

use serde::Serialize;

use super::api::Api;
use super::error::ClientError;
use super::sandbox::{Destroyed, destroy};
use crate::output::{self, Format};

/// Destroy sandboxes.
#[derive(Debug, Clone, clap::Args)]
pub struct KillArgs {
    /// Sandboxes.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    id: &'a str,
    status: &'static str,
}

/// One after the other; one that fails does not save the rest.
pub async fn kill(api: &Api, format: Format, args: KillArgs) -> Result<ExitCode, ClientError> {
    let mut failed = false;
    for id in &args.ids {
        let status = match destroy(api, id).await {
            Ok(Destroyed::Gone) => "destroyed",
            Ok(Destroyed::Later) => {
                output::note(&format!("{id}: its node is slow or away; it will be destroyed"));
                "destroying"
            }
            // The next one would fail in the same way.
            Err(error @ ClientError::Unreachable { .. }) => return Err(error),
            Err(error) => {
                output::error(&anyhow::Error::new(error).context(id.clone()));
                failed = true;
                continue;
            }
        };
        match format {
            Format::Table => output::print(&format!("{}\n", output::plain(id))),
            Format::Json => output::print_json_line(&Outcome { id, status }),
        }
        .map_err(ClientError::output)?;
    }
    if failed { Err(ClientError::Told) } else { Ok(ExitCode::SUCCESS) }
}
