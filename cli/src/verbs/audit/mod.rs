//! `stacyvm audit`: what happened, and whether the record of it is what it was.

mod erase;
mod export;
mod filter;
mod tail;
mod verify;

use std::process::ExitCode;

use clap::Subcommand;

use super::error::VerbError;
use crate::output::Format;
use client::Client;

/// Show what happened, and check that the record of it was not changed.
#[derive(Debug, Clone, clap::Args)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum AuditCommand {
    /// Check the hash chains and the signed checkpoints: of a server, or offline of a data directory, a database or an
    /// export. The exit code is 1 when something is wrong.
    Verify(verify::VerifyArgs),
    /// Write the log into a file. What is chosen of it, by a filter, is csv or cloudevents: it cannot be verified.
    Export(export::ExportArgs),
    /// Show the newest events, and with --follow those that come.
    Tail(tail::TailArgs),
    /// Erase what a sandbox wrote and read, by destroying the key that it is kept under. The events stay.
    Erase(erase::EraseArgs),
}

pub async fn audit(api: &Client, format: Format, args: AuditArgs) -> Result<ExitCode, VerbError> {
    match args.command {
        AuditCommand::Verify(args) => verify::verify(api, format, args).await,
        AuditCommand::Export(args) => export::export(api, args).await,
        AuditCommand::Tail(args) => tail::tail(api, format, args).await,
        AuditCommand::Erase(args) => erase::erase(api, format, args).await,
    }
}
