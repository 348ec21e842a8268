//! `stacyvm shell`

use std::process::ExitCode;

use super::arguments::EnvPair;
use super::attach::{self, Heed, KeyArgs};
use super::command::{self, CommandArgs, Input};
use super::error::VerbError;
use super::signals::Signals;
use super::terminal;
use crate::output::Format;
use client::Client;

/// What runs where no shell is named: the best one that the image has, as at a login.
const ANY_SHELL: &str = "if command -v bash >/dev/null 2>&1; then SHELL=$(command -v bash); export SHELL; exec bash -l; fi; exec sh -l";

/// Before it, where our terminal shows UTF-8: most images set no locale, and editors then take it for Latin-1.
const UTF_8: &str = "if [ -z \"$LC_ALL$LC_CTYPE$LANG\" ]; then LANG=C.UTF-8; export LANG; fi; ";

/// Open a shell in a sandbox, on this terminal.
///
/// It goes on when this program ends, however it ends: the detach keys leave it, `stacyvm attach` comes back to it from any
/// machine. Ctrl-C, Ctrl-Z and all other keys are for the shell. The exit code is the shell's. With a stdin that is no
/// terminal the shell reads its commands from there.
#[derive(Debug, Clone, clap::Args)]
pub struct ShellArgs {
    /// Sandbox.
    pub id: String,
    /// The shell, with a name or a path [default: bash where there is one, else sh].
    #[arg(long, value_name = "SHELL")]
    pub shell: Option<String>,
    /// Environment variable; NAME alone takes the value that it has here. May be repeated.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<EnvPair>,
    /// The same for a secret: its value is masked in all that is recorded. NAME alone keeps it out of the command line.
    #[arg(long, value_name = "NAME=VALUE")]
    pub secret: Vec<EnvPair>,
    /// Working directory [default: /workspace].
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    #[command(flatten)]
    pub keys: KeyArgs,
    /// A program to run on the terminal instead of a shell, with its arguments.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub async fn shell(api: &Client, format: Format, args: ShellArgs) -> Result<ExitCode, VerbError> {
    let mut signals = Signals::catch().map_err(VerbError::local("cannot catch signals"))?;
    let input = if terminal::is_input() { Input::Terminal } else { Input::Stdin };
    let words = match (args.command.is_empty(), args.shell) {
        (false, _) => args.command,
        (true, Some(shell)) => vec![shell, "-l".to_owned()],
        (true, None) => {
            let locale = if is_utf_8() { UTF_8 } else { "" };
            vec!["/bin/sh".to_owned(), "-c".to_owned(), format!("{locale}{ANY_SHELL}")]
        }
    };
    let command_args = CommandArgs {
        env: args.env,
        secret: args.secret,
        workdir: args.workdir,
        timeout: None,
        interactive: true,
        tty: input == Input::Terminal,
        shell: false,
        raw: false,
    };
    let request = command::fed(command::request(words, &command_args)?, input);
    let mut heed = Heed::Leave(&mut signals);
    let exec = heed.attend(api.start_exec(&args.id, &request)).await??;
    let outcome = attach::follow(api, &exec, input, args.keys.detach_keys, format, &mut heed).await?;
    Ok(ExitCode::from(outcome.report(&exec)))
}

/// Whether our terminal shows UTF-8: the first of the variables that is set says so.
fn is_utf_8() -> bool {
    let set = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    set.is_some_and(|locale| locale.to_ascii_lowercase().replace('-', "").contains("utf8"))
}
