//! `stacyvm kill` and `stacyvm signal`

use std::process::ExitCode;

use reqwest::Method;
use serde::Serialize;

use super::api::Api;
use super::error::ClientError;
use super::sandbox::{Destroyed, destroy};
use crate::output::{self, Format};

/// Destroy sandboxes; end commands that run, with all that they started.
#[derive(Debug, Clone, clap::Args)]
pub struct KillArgs {
    /// Sandboxes and execs.
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<String>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    id: &'a str,
    status: &'static str,
}

/// Send a signal to a command, that is to its process group.
#[derive(Debug, Clone, clap::Args)]
pub struct SignalArgs {
    /// Exec.
    #[arg(value_name = "EXEC")]
    pub id: String,
    /// Its name, with or without SIG, or its number.
    #[arg(default_value = "TERM")]
    pub signal: String,
}

/// Whether an id is that of an exec.
pub fn is_exec(id: &str) -> bool {
    id.starts_with("ex-")
}

pub async fn signal(api: &Api, args: SignalArgs) -> Result<ExitCode, ClientError> {
    let signal = match args.signal.parse::<i32>() {
        Ok(number) => serde_json::json!({ "signal": number }),
        Err(_) => serde_json::json!({ "signal": args.signal }),
    };
    let url = api.url(&["execs", &args.id, "signal"]);
    api.send(api.request(Method::POST, url).json(&signal)).await?;
    Ok(ExitCode::SUCCESS)
}

/// One after the other; one that fails does not save the rest.
pub async fn kill(api: &Api, format: Format, args: KillArgs) -> Result<ExitCode, ClientError> {
    let mut failed = false;
    for id in &args.ids {
        let outcome = match is_exec(id) {
            true => end(api, id).await,
            false => destroy(api, id).await.map(Some),
        };
        let status = match outcome {
            Ok(None) => "killed",
            Ok(Some(Destroyed::Gone)) => "destroyed",
            Ok(Some(Destroyed::Later)) => {
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

/// One that has ended is what was wanted.
async fn end(api: &Api, exec: &str) -> Result<Option<Destroyed>, ClientError> {
    match api.send(api.request(Method::DELETE, api.url(&["execs", exec]))).await {
        Ok(_) | Err(ClientError::Refused { status: 409, .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
