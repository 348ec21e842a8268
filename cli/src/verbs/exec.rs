//! `stacyvm exec`

use std::process::ExitCode;

use super::attach::KeyArgs;
use super::command::{self, CommandArgs};
use super::error::VerbError;
use super::session;
use super::signals::Signals;
use crate::output::{self, Format};
use client::Client;

/// Run a command in a sandbox.
#[derive(Debug, Clone, clap::Args)]
pub struct ExecArgs {
    /// Sandbox.
    pub id: String,
    #[command(flatten)]
    pub command_args: CommandArgs,
    /// Start the command, print its id and leave it running: `attach` shows what it does.
    #[arg(long, short)]
    pub detach: bool,
    #[command(flatten)]
    pub keys: KeyArgs,
    /// The program and its arguments, with or without -- before them; with --shell, a line for /bin/sh. All that follows its
    /// first word is its own, also what looks like an option.
    #[arg(trailing_var_arg = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub async fn exec(api: &Client, format: Format, args: ExecArgs) -> Result<ExitCode, VerbError> {
    let mut signals = Signals::catch().map_err(VerbError::local("cannot catch signals"))?;
    let request = command::request(args.command, &args.command_args)?;
    let input = args.command_args.input();
    if args.detach {
        let exec = api.start_exec(&args.id, &command::fed(request, input)).await?;
        match format {
            Format::Table => output::print(&format!("{}\n", output::plain(&exec))),
            Format::Json => output::print_json_line(&serde_json::json!({ "exec_id": exec })),
        }
        .map_err(VerbError::output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let keys = args.keys.detach_keys;
    let raw = args.command_args.raw;
    let finish = session::run(api, &args.id, request, input, keys, format, raw, &mut signals).await?;
    Ok(ExitCode::from(finish.report()))
}
