//! `stacyvm exec`

use std::process::ExitCode;

use super::api::Api;
use super::command::{CommandArgs, ExecRequest};
use super::error::ClientError;
use super::session;
use super::signals::Signals;
use crate::output::Format;

/// Run a command in a sandbox.
#[derive(Debug, Clone, clap::Args)]
pub struct ExecArgs {
    /// Sandbox.
    pub id: String,
    #[command(flatten)]
    pub command_args: CommandArgs,
    /// The program and its arguments; with --shell, a line for /bin/sh.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub async fn exec(api: &Api, format: Format, args: ExecArgs) -> Result<ExitCode, ClientError> {
    let mut signals = Signals::catch().map_err(ClientError::local("cannot catch signals"))?;
    let request = ExecRequest::new(args.command, &args.command_args)?;
    let input = args.command_args.input();
    let finish = session::run(api, &args.id, &request, input, format, &mut signals).await?;
    Ok(ExitCode::from(finish.report()))
}
