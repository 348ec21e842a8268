//! The verbs that talk to a server: one a file. This module knows nothing of how a server works inside; what it knows of
//! one is the crate `client`.

mod arguments;
mod attach;
mod audit;
mod command;
mod control;
mod cp;
mod cp_tree;
mod details;
mod ending;
mod error;
mod events;
mod exec;
mod execs;
mod extend;
mod get;
mod job;
mod kill;
mod list;
mod logs;
mod moment;
mod replay;
mod run;
mod schedule;
mod session;
mod share;
mod shell;
mod signals;
mod spawn;
mod stats;
mod stdin;
mod template;
mod terminal;
mod transfer;
mod version;
mod wait;
mod webhook;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use client::{BuildError, Client};

use self::error::VerbError;
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
    /// Who asks, where several people share a key. It is recorded as it is given: the server cannot verify it.
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "STACYVM_USER_ID",
        help_heading = "Client options"
    )]
    pub user_id: Option<String>,
    /// Certificate authorities to trust beside the system's, in PEM form, for https.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "STACYVM_CA_FILE",
        help_heading = "Client options"
    )]
    pub ca_file: Option<PathBuf>,
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

impl GlobalOptions {
    fn client(&self) -> Result<Client, BuildError> {
        let mut builder = Client::builder(&self.url)
            .user_agent(concat!("stacyvm-cli/", env!("CARGO_PKG_VERSION")))
            .api_key(self.api_key.as_deref().unwrap_or_default())
            .user_id(self.user_id.as_deref().unwrap_or_default());
        if let Some(path) = &self.ca_file {
            builder = builder.authorities(path);
        }
        builder.build()
    }
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
    /// Make a link with which others may watch a command without a key; or list and revoke such links.
    Share(share::ShareArgs),
    /// List what ran and runs in a sandbox.
    Execs(execs::ExecsArgs),
    /// Play what an exec showed, or all that ran in a sandbox, with its timing.
    Replay(replay::ReplayArgs),
    /// List sandboxes.
    #[command(visible_alias = "ls")]
    List(list::ListArgs),
    /// Show one sandbox.
    Get(get::GetArgs),
    /// Destroy sandboxes; end commands that run.
    #[command(visible_alias = "destroy")]
    Kill(kill::KillArgs),
    /// Give a sandbox another time to live, counted from now.
    Extend(extend::ExtendArgs),
    /// Show what sandboxes use of their CPU and memory.
    Stats(stats::StatsArgs),
    /// Wait until an exec or a sandbox has ended.
    Wait(wait::WaitArgs),
    /// Copy files and folders into or out of a sandbox.
    Cp(cp::CpArgs),
    /// Send a signal to a command.
    Signal(kill::SignalArgs),
    /// Show what happened to a sandbox, or what a command has written so far.
    Logs(logs::LogsArgs),
    /// Show what happened, from the record.
    Events(events::EventsArgs),
    Audit(audit::AuditArgs),
    /// Manage templates: named defaults for sandboxes.
    Template(template::TemplateArgs),
    /// Manage webhooks: receivers that are told of events over HTTP.
    Webhook(webhook::WebhookArgs),
    /// Manage schedules: jobs that are submitted when their time has come.
    Schedule(schedule::ScheduleArgs),
    Job(job::JobArgs),
    /// Show the versions of this program and of the server.
    Version,
}

/// Carries out a command. What goes wrong is told on stderr here; the exit code says that it did.
pub async fn run(command: ClientCommand, global: GlobalOptions) -> anyhow::Result<ExitCode> {
    let subject = command.subject().map(str::to_owned);
    let passes_exit_code = command.passes_exit_code();
    let outcome = match global.client() {
        Ok(api) => dispatch(command, &api, global.output).await,
        Err(error) => Err(error.into()),
    };
    Ok(outcome.unwrap_or_else(|error| report(error, subject.as_deref(), passes_exit_code)))
}

/// The verbs whose exit code is that of a command in a sandbox: what fails here must not look like it.
const PASSING_VERBS: [&str; 5] = ["run", "exec", "shell", "attach", "wait"];

impl ClientCommand {
    const fn passes_exit_code(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Exec(_) | Self::Shell(_) | Self::Attach(_) | Self::Wait(_))
    }

    /// The one thing that it is about, to be named where it fails.
    fn subject(&self) -> Option<&str> {
        match self {
            Self::Exec(args) => Some(&args.id),
            Self::Shell(args) => Some(&args.id),
            Self::Attach(args) => Some(&args.id),
            Self::Share(args) => Some(&args.id),
            Self::Execs(args) => Some(&args.id),
            Self::Replay(args) => Some(&args.id),
            Self::Get(args) => Some(&args.id),
            Self::Extend(args) => Some(&args.id),
            Self::Wait(args) => Some(&args.id),
            Self::Signal(args) => Some(&args.id),
            Self::Logs(args) => Some(&args.id),
            Self::Run(_)
            | Self::Spawn(_)
            | Self::List(_)
            | Self::Kill(_)
            | Self::Stats(_)
            | Self::Cp(_)
            | Self::Events(_)
            | Self::Audit(_)
            | Self::Template(_)
            | Self::Webhook(_)
            | Self::Schedule(_)
            | Self::Job(_)
            | Self::Version => None,
        }
    }
}

/// The exit code for a command line that cannot be read, by its words.
pub fn usage_exit_code(mut words: impl Iterator<Item = std::ffi::OsString>) -> u8 {
    let passing = words.any(|word| word.to_str().is_some_and(|word| PASSING_VERBS.contains(&word)));
    if passing { error::FAILURE } else { error::USAGE }
}

async fn dispatch(command: ClientCommand, api: &Client, format: Format) -> Result<ExitCode, VerbError> {
    match command {
        ClientCommand::Run(args) => run::run(api, format, args).await,
        ClientCommand::Spawn(args) => spawn::spawn(api, format, args).await,
        ClientCommand::Exec(args) => exec::exec(api, format, args).await,
        ClientCommand::Shell(args) => shell::shell(api, format, args).await,
        ClientCommand::Attach(args) => attach::attach(api, format, args).await,
        ClientCommand::Share(args) => share::share(api, format, args).await,
        ClientCommand::Execs(args) => execs::execs(api, format, args).await,
        ClientCommand::Replay(args) => replay::replay(api, args).await,
        ClientCommand::List(args) => list::list(api, format, args).await,
        ClientCommand::Get(args) => get::get(api, format, args).await,
        ClientCommand::Kill(args) => kill::kill(api, format, args).await,
        ClientCommand::Extend(args) => extend::extend(api, format, args).await,
        ClientCommand::Stats(args) => stats::stats(api, format, args).await,
        ClientCommand::Wait(args) => wait::wait(api, format, args).await,
        ClientCommand::Cp(args) => cp::cp(api, args).await,
        ClientCommand::Signal(args) => kill::signal(api, args).await,
        ClientCommand::Logs(args) => logs::logs(api, format, args).await,
        ClientCommand::Events(args) => events::events(api, format, args).await,
        ClientCommand::Audit(args) => audit::audit(api, format, args).await,
        ClientCommand::Template(args) => template::template(api, format, args).await,
        ClientCommand::Webhook(args) => webhook::webhook(api, format, args).await,
        ClientCommand::Schedule(args) => schedule::schedule(api, format, args).await,
        ClientCommand::Job(args) => job::job(api, format, args).await,
        ClientCommand::Version => version::version(api, format).await,
    }
}

fn report(error: VerbError, subject: Option<&str>, passes_exit_code: bool) -> ExitCode {
    let code = match error.exit_code() {
        error::USAGE if passes_exit_code => error::FAILURE,
        code => code,
    };
    if !error.is_quiet() {
        let remedy = error.remedy(subject);
        // Only what the server said is about the thing; and it may have named it.
        let subject = subject.filter(|id| error.is_refusal() && !error.to_string().contains(id));
        let error = anyhow::Error::new(error);
        output::error(&match subject {
            Some(id) => error.context(id.to_owned()),
            None => error,
        });
        if let Some(remedy) = remedy {
            output::remedy(&remedy);
        }
    }
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_cannot_be_one_is_told_of_by_its_option() {
        let said = |url: &str, user: &str| {
            let options = GlobalOptions {
                url: url.to_owned(),
                api_key: Some("hunter2".to_owned()),
                user_id: Some(user.to_owned()),
                ca_file: None,
                output: Format::Table,
            };
            options.client().err().map(|error| VerbError::from(error).to_string())
        };
        for url in ["127.0.0.1:7423", "[::1]:7423", "localhost:7423", "host.example"] {
            let expected = format!("--url {url:?}: it must begin with http:// or https://");
            assert_eq!(said(url, ""), Some(expected));
        }
        let expected = "--user-id \"a\\nb\": no header can hold it".to_owned();
        assert_eq!(said("http://x", "a\nb"), Some(expected));
        assert_eq!(said("http://x", "carol"), None);
    }

    #[test]
    fn a_wrong_command_line_does_not_look_like_a_command_that_failed() {
        let code = |line: &str| usage_exit_code(line.split(' ').map(Into::into));
        assert_eq!(code("exec --no-such-flag sb-1 true"), 125);
        assert_eq!(code("--output json run"), 125);
        assert_eq!(code("list --no-such-flag"), 2);
        assert_eq!(code("serve --no-such-flag"), 2);
    }
}
