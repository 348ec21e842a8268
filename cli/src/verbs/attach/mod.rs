//! `stacyvm attach`, and what `exec -i`, `exec -t` and `shell` have in common with it.

mod outage;
mod screen;
mod session;

pub use screen::json_line;

use std::process::ExitCode;
use std::time::Duration;

use self::session::{Finish, Plan, Session};
use super::command::Input;
use super::control::{Control, Ended};
use super::ending::{exit_code, remark};
use super::error::VerbError;
use super::signals::Signals;
use super::terminal::{self, DetachKeys};
use crate::output::{self, Format, LiveOutput, Target};
use client::{AttachRequest, Client, EndRecord, Offsets};

/// A terminal that takes no output is not waited for longer than this.
const PARTING: Duration = Duration::from_millis(300);

/// See what a running command shows, from its start, and type into it.
///
/// A command with a terminal gets this one, and the screen is rebuilt as it was. Its size becomes this one's. When the
/// server goes away the connection is made again: no output is lost or repeated, and what is typed meanwhile is sent after
/// it. The exit code is the command's.
#[derive(Debug, Clone, clap::Args)]
pub struct AttachArgs {
    /// Exec.
    #[arg(value_name = "EXEC")]
    pub id: String,
    /// Only watch. Ctrl-C leaves.
    #[arg(long)]
    pub ro: bool,
    /// Begin with the first byte that it wrote. This is the default.
    #[arg(long, conflicts_with = "tail")]
    pub from_start: bool,
    /// Only what comes from now on. Most full-screen programs redraw their screen at Ctrl-L.
    #[arg(long)]
    pub tail: bool,
    #[command(flatten)]
    pub keys: KeyArgs,
}

/// How to leave.
#[derive(Debug, Clone, clap::Args)]
pub struct KeyArgs {
    /// Keys that leave the command running and give the terminal back: characters or ctrl-CHARACTER, separated by commas;
    /// or none.
    #[arg(long, value_name = "KEYS", env = "STACYVM_DETACH_KEYS", default_value_t, hide_env_values = true)]
    pub detach_keys: DetachKeys,
}

/// How an attachment came to an end.
#[derive(Debug)]
pub enum Outcome {
    /// The exec is over.
    Ended(EndRecord),
    /// It goes on without us.
    Detached,
    /// A signal ended the attachment.
    Interrupted(u8),
}

/// What signals to this program mean.
pub enum Heed<'c, 's> {
    /// They are for the command.
    PassOn(&'c mut Control<'s>),
    /// They end the attachment, not the command.
    Leave(&'c mut Signals),
}

impl Heed<'_, '_> {
    /// Waits for something, and meanwhile handles signals.
    pub async fn attend<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        match self {
            Self::PassOn(control) => control.attend(work).await,
            Self::Leave(signals) => tokio::select! {
                biased;
                caught = signals.next() => Err(Ended(caught.exit_code())),
                result = work => Ok(result),
            },
        }
    }
}

pub async fn attach(api: &Client, format: Format, args: AttachArgs) -> Result<ExitCode, VerbError> {
    let mut signals = Signals::catch().map_err(VerbError::local("cannot catch signals"))?;
    let exec = api.exec(&args.id).await?;
    let offsets = match args.tail {
        true => Offsets { stdout: exec.stdout_bytes, stderr: exec.stderr_bytes },
        false => Offsets::default(),
    };
    let plan = Plan {
        request: AttachRequest { offsets, read_only: args.ro, ..AttachRequest::to(&args.id) },
        is_terminal: exec.has_terminal(),
        is_rebuilt: !args.tail && format == Format::Table,
        is_fed: !args.ro,
        keys: args.keys.detach_keys,
        format,
    };
    let outcome = run(api, plan, &mut Heed::Leave(&mut signals)).await?;
    Ok(ExitCode::from(outcome.report(&args.id)))
}

/// Attaches to a command that was just started here.
pub async fn follow(
    api: &Client,
    exec: &str,
    input: Input,
    keys: DetachKeys,
    format: Format,
    heed: &mut Heed<'_, '_>,
) -> Result<Outcome, VerbError> {
    let plan = Plan {
        request: AttachRequest::to_new(exec),
        is_terminal: input == Input::Terminal,
        is_rebuilt: false,
        is_fed: input != Input::Nothing,
        keys,
        format,
    };
    run(api, plan, heed).await
}

impl Outcome {
    /// What the shell gets. Remarks go to stderr.
    pub fn report(self, exec: &str) -> u8 {
        let (code, words) = match self {
            Self::Ended(end) => (exit_code(&end), remark(&end)),
            Self::Detached => (0, Some(come_back(exec))),
            Self::Interrupted(code) => (code, Some(come_back(exec))),
        };
        if let Some(words) = words {
            output::note(&words);
        }
        code
    }
}

fn come_back(exec: &str) -> String {
    format!("it goes on without us: come back with `stacyvm attach {exec}`")
}

async fn run(api: &Client, plan: Plan, heed: &mut Heed<'_, '_>) -> Result<Outcome, VerbError> {
    let out = LiveOutput::start().map_err(VerbError::local("cannot start a thread"))?;
    let attachment = match heed.attend(api.attach(plan.request.clone())).await {
        Ok(attachment) => attachment?,
        Err(Ended(code)) => return Ok(Outcome::Interrupted(code)),
    };
    let (format, had_terminal) = (plan.format, plan.is_terminal && terminal::is_input());
    let mut session = Session::new(plan, &out, attachment)?;
    let result = heed.attend(session.run()).await;
    let outcome = match result {
        Ok(Ok(Finish::Ended(end))) => {
            session.close().await;
            match heed.attend(write_end(&out, format, &end)).await {
                Ok(written) => written.map(|()| Outcome::Ended(end)),
                Err(Ended(code)) => Ok(Outcome::Interrupted(code)),
            }
        }
        Ok(Ok(Finish::Detached)) => {
            session.close().await;
            let _ = tokio::time::timeout(PARTING, out.flush()).await;
            Ok(Outcome::Detached)
        }
        Ok(Err(error)) => {
            session.close().await;
            let _ = tokio::time::timeout(PARTING, out.flush()).await;
            Err(error)
        }
        Err(Ended(code)) => Ok(Outcome::Interrupted(code)),
    };
    if !matches!(outcome, Ok(Outcome::Ended(_))) {
        // What is written after the terminal is given back would set it up once more.
        let _ = tokio::time::timeout(PARTING, out.abandon()).await;
    }
    drop(session);
    if had_terminal && !matches!(outcome, Ok(Outcome::Ended(_))) && terminal::is_output() {
        // The cursor stands somewhere in what the program wrote.
        let _ = output::print("\r\n");
    }
    outcome
}

async fn write_end(out: &LiveOutput, format: Format, end: &EndRecord) -> Result<(), VerbError> {
    if format == Format::Json {
        out.write(Target::Stdout, json_line(end)?).await.map_err(VerbError::output)?;
    }
    out.flush().await.map_err(VerbError::output)
}
