//! `stacyvm job ...`

mod artifacts;

use std::process::ExitCode;

use client::Client;

use super::error::VerbError;
use crate::output::Format;

/// Manage jobs: commands in sandboxes of their own, each with an outcome.
#[derive(Debug, Clone, clap::Args)]
pub struct JobArgs {
    #[command(subcommand)]
    pub verb: JobVerb,
}

#[derive(Debug, Clone, clap::Subcommand)]
pub enum JobVerb {
    Artifacts(artifacts::ArtifactsArgs),
}

pub async fn job(api: &Client, format: Format, args: JobArgs) -> Result<ExitCode, VerbError> {
    match args.verb {
        JobVerb::Artifacts(args) => artifacts::artifacts(api, format, args).await,
    }
}
