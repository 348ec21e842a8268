//! The verbs that talk to a server: one a file. This module knows nothing of how a server works inside; what it knows of
//! one is the HTTP API.

mod api;
mod arguments;
mod attach;
mod audit;
mod command;
mod control;
mod cp;
mod details;
mod error;
mod events;
mod exec;
mod execs;
mod feed;
mod get;
mod kill;
mod list;
mod logs;
mod ndjson;
mod offsets;
mod patience;
mod record;
mod replay;
mod run;
mod sandbox;
mod session;
mod shell;
mod signals;
mod spawn;
mod sse;
mod stdin;
mod terminal;
mod transfer;
mod version;
mod webhook;
mod websocket;

use std::process::ExitCode;

use clap::Subcommand;

use self::api::Api;
use self::error::ClientError;
use crate::output::{self, Format};

/// Where the server is, and how to answer.
#[derive(Debug, Clone, clap::Args)]
pub struct GlobalOptions {
    /// The server.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "STACYVM_URL",
        default_value = "http://127.0.0.1:7423",
        help_heading = "Client options"
    )]
    pub url: String,
    /// The API key, where the server asks for one.
    #[arg(
        long,
        global = true,
        value_name = "KEY",
        env = "STACYVM_API_KEY",
        hide_env_values = true,
        help_heading = "Client options"
    )]
    pub api_key: Option<String>,
    /// How to print results.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Client options"
    )]
    pub output: Format,
}

/// What a client can ask for.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Run one command in a sandbox of its own: make it, show the output as it comes, destroy it.
    Run(run::RunArgs),
    /// Make a sandbox and print its id.
    Spawn(spawn::SpawnArgs),
    /// Run a command in a sandbox and show its output as it comes. The exit code is the command's.
    Exec(exec::ExecArgs),
    /// Open a shell in a sandbox, on this terminal.
    Shell(shell::ShellArgs),
    /// See what a running command shows, from its start, and type into it.
    Attach(attach::AttachArgs),
    /// List what ran and runs in a sandbox.
    Execs(execs::ExecsArgs),
    /// Play what an exec showed, or all that ran in a sandbox, with its timing.
    Replay(replay::ReplayArgs),
    /// List sandboxes.
    #[command(visible_alias = "ls")]
    List,
    /// Show one sandbox.
    Get(get::GetArgs),
    /// Destroy sandboxes; end commands that run.
    #[command(visible_alias = "destroy")]
    Kill(kill::KillArgs),
    /// Copy a file into or out of a sandbox.
    Cp(cp::CpArgs),
    /// Send a signal to a command.
    Signal(kill::SignalArgs),
    /// Show what happened to a sandbox, or what a command has written so far.
    Logs(logs::LogsArgs),
    /// Show what happened, from the record.
    Events(events::EventsArgs),
    Audit(audit::AuditArgs),
    /// Manage webhooks: receivers that are told of events over HTTP.
    Webhook(webhook::WebhookArgs),
    /// Show the versions of this program and of the server.
    Version,
}

/// Carries out a command. What goes wrong is told on stderr here; the exit code says that it did.
pub async fn run(command: ClientCommand, global: GlobalOptions) -> anyhow::Result<ExitCode> {
    let outcome = match Api::new(&global) {
        Ok(api) => dispatch(command, &api, global.output).await,
        Err(error) => Err(error),
    };
    Ok(outcome.unwrap_or_else(report))
}

async fn dispatch(command: ClientCommand, api: &Api, format: Format) -> Result<ExitCode, ClientError> {
    match command {
        ClientCommand::Run(args) => run::run(api, format, args).await,
        ClientCommand::Spawn(args) => spawn::spawn(api, format, args).await,
        ClientCommand::Exec(args) => exec::exec(api, format, args).await,
        ClientCommand::Shell(args) => shell::shell(api, format, args).await,
        ClientCommand::Attach(args) => attach::attach(api, format, args).await,
        ClientCommand::Execs(args) => execs::execs(api, format, args).await,
        ClientCommand::Replay(args) => replay::replay(api, args).await,
        ClientCommand::List => list::list(api, format).await,
        ClientCommand::Get(args) => get::get(api, format, args).await,
        ClientCommand::Kill(args) => kill::kill(api, format, args).await,
        ClientCommand::Cp(args) => cp::cp(api, args).await,
        ClientCommand::Signal(args) => kill::signal(api, args).await,
        ClientCommand::Logs(args) => logs::logs(api, format, args).await,
        ClientCommand::Events(args) => events::events(api, format, args).await,
        ClientCommand::Audit(args) => audit::audit(api, format, args).await,
        ClientCommand::Webhook(args) => webhook::webhook(api, format, args).await,
        ClientCommand::Version => version::version(api, format).await,
    }
}

fn report(error: ClientError) -> ExitCode {
    let code = error.exit_code();
    if !error.is_quiet() {
        output::error(&anyhow::Error::new(error));
    }
    ExitCode::from(code)
}
