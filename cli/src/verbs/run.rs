//! `stacyvm run`: a sandbox for one command.

use std::process::ExitCode;

use super::command::{self, CommandArgs};
use super::error::VerbError;
use super::session;
use super::signals::Signals;
use super::spawn::{self, SandboxArgs, create, give_back};
use super::terminal::DetachKeys;
use crate::output::{self, Format};
use client::Client;

/// Run one command in a sandbox of its own.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Image.
    pub image: String,
    #[command(flatten)]
    pub sandbox: SandboxArgs,
    #[command(flatten)]
    pub command_args: CommandArgs,
    /// Leave the sandbox there; its id is told on stderr.
    #[arg(long)]
    pub keep: bool,
    /// The program and its arguments, with or without -- before them. All that follows its first word is its own.
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub async fn run(api: &Client, format: Format, args: RunArgs) -> Result<ExitCode, VerbError> {
    let mut signals = Signals::catch().map_err(VerbError::local("cannot catch signals"))?;
    let request = command::request(args.command, &args.command_args)?;
    let spawn = spawn::request(Some(args.image), None, args.sandbox, &[], &[]);
    let sandbox = create(api, &spawn, &mut signals).await?;
    let input = args.command_args.input();
    // What is left running would be destroyed with its sandbox: there would be nothing to come back to.
    let keys = DetachKeys::none();
    let raw = args.command_args.raw;
    let outcome = session::run(api, &sandbox.id, request, input, keys, format, raw, &mut signals).await;
    if args.keep {
        output::note(&format!("{} is kept", sandbox.id));
    } else {
        give_back(api, &sandbox.id, &mut signals).await;
    }
    Ok(ExitCode::from(outcome?.report()))
}
