//! `stacyvm kill` and `stacyvm signal`

use std::process::ExitCode;

use serde::Serialize;

use super::error::VerbError;
use crate::output::{self, Format};
use client::{Client, ClientError, Destroyed};

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

pub async fn signal(api: &Client, args: SignalArgs) -> Result<ExitCode, VerbError> {
    api.signal_exec(&args.id, &args.signal).await?;
    Ok(ExitCode::SUCCESS)
}

/// One after the other; one that fails does not save the rest.
pub async fn kill(api: &Client, format: Format, args: KillArgs) -> Result<ExitCode, VerbError> {
    let mut failed = false;
    for id in &args.ids {
        let outcome = match is_exec(id) {
            true => end(api, id).await,
            false => api.destroy(id).await.map(Some),
        };
        let status = match outcome {
            Ok(None) => "killed",
            Ok(Some(Destroyed::Gone)) => "destroyed",
            Ok(Some(Destroyed::Later)) => {
                output::note(&format!("{id}: its node is slow or away; it will be destroyed"));
                "destroying"
            }
            // The next one would fail in the same way.
            Err(error @ ClientError::Unreachable { .. }) => return Err(error.into()),
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
        .map_err(VerbError::output)?;
    }
    if failed { Err(VerbError::Told) } else { Ok(ExitCode::SUCCESS) }
}

/// One that has ended is what was wanted.
async fn end(api: &Client, exec: &str) -> Result<Option<Destroyed>, ClientError> {
    match api.kill_exec(exec).await {
        Err(error) if !error.is_conflict() => Err(error),
        Ok(()) | Err(_) => Ok(None),
    }
}
