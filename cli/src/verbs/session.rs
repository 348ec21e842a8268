//! One command in a sandbox, from its start to its exit code, over as many connections as that takes.

use bytes::Bytes;
use client::{Client, ClientError, EndRecord, Exec, ExecRequest, ExecUpdate, Offsets, OutputStream};

use super::attach::{self, Heed, Outcome, json_line};
use super::command::{self, Input};
use super::control::{Control, Ended};
use super::ending::{exit_code, gone, remark};
use super::error::VerbError;
use super::signals::Signals;
use super::terminal::{self, DetachKeys, output_of_sandboxes};
use crate::output::{self, Format, LiveOutput, OutputLine, Target};

/// How the session is over.
#[derive(Debug)]
pub enum Finish {
    /// The command ended.
    Ended(EndRecord),
    /// We do not wait for it any more.
    Interrupted(u8),
    /// The user left it, and it goes on.
    Detached(String),
}

impl Finish {
    /// What the shell gets. Remarks go to stderr.
    pub fn report(self) -> u8 {
        match self {
            Self::Ended(end) => {
                if let Some(remark) = remark(&end) {
                    output::note(&remark);
                }
                exit_code(&end)
            }
            Self::Interrupted(code) => code,
            Self::Detached(exec) => Outcome::Detached.report(&exec),
        }
    }
}

/// Runs a command and writes what it writes; `raw`: to a terminal too as it is.
#[expect(clippy::too_many_arguments, reason = "each is a word of the command line")]
pub async fn run(
    api: &Client,
    sandbox: &str,
    request: ExecRequest,
    input: Input,
    keys: DetachKeys,
    format: Format,
    raw: bool,
    signals: &mut Signals,
) -> Result<Finish, VerbError> {
    let mut control = Control::new(api, signals);
    let outcome = match input {
        Input::Nothing => {
            let out = output_of_sandboxes(raw).map_err(VerbError::local("cannot start a thread"))?;
            watch(api, sandbox, request, format, &out, &mut control).await.map(Finish::Ended)
        }
        Input::Stdin | Input::Terminal => {
            feed(api, sandbox, request, input, keys, format, &mut control).await
        }
    };
    if let Err(Stop::Failed(
        VerbError::OutputClosed
        | VerbError::Local { .. }
        | VerbError::Failed(_)
        | VerbError::Server(ClientError::Closed(_)),
    )) = &outcome
    {
        // As a process on this machine would be ended whose reader or writer has gone away.
        control.kill("SIGTERM").await;
    }
    match outcome {
        Ok(finish) => Ok(finish),
        Err(Stop::Ended(Ended(code))) => Ok(Finish::Interrupted(code)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

async fn feed(
    api: &Client,
    sandbox: &str,
    request: ExecRequest,
    input: Input,
    keys: DetachKeys,
    format: Format,
    control: &mut Control<'_>,
) -> Result<Finish, Stop> {
    if input == Input::Terminal && !(terminal::is_input() && terminal::is_output()) {
        return Err(VerbError::Usage("--tty needs a terminal on stdin and stdout".to_owned()).into());
    }
    let request = command::fed(request, input);
    let exec = control.attend(api.start_exec(sandbox, &request)).await??;
    control.started(exec.clone());
    Ok(match attach::follow(api, &exec, input, keys, format, &mut Heed::PassOn(control)).await? {
        Outcome::Ended(end) => Finish::Ended(end),
        Outcome::Detached => Finish::Detached(exec),
        Outcome::Interrupted(code) => Finish::Interrupted(code),
    })
}

/// Writes what a command has written up to now; with `follow` also what comes, until it ends.
pub async fn recorded(
    api: &Client,
    exec: &str,
    format: Format,
    follow: bool,
    raw: bool,
) -> Result<(), VerbError> {
    let out = output_of_sandboxes(raw).map_err(VerbError::local("cannot start a thread"))?;
    let Exec { stdout_bytes, stderr_bytes, .. } = api.exec(exec).await?;
    let mut offsets = Offsets::default();
    let mut updates = api.follow_exec(exec, offsets).await?;
    while follow || offsets.stdout < stdout_bytes || offsets.stderr < stderr_bytes {
        match updates.next().await.transpose()? {
            Some(ExecUpdate::Output { stream, offset, bytes }) => {
                offsets.pass_over(stream, offset + bytes.len() as u64);
                write(&out, format, stream, offset, bytes).await?;
            }
            Some(ExecUpdate::Gone { stream, from, to }) => {
                offsets.pass_over(stream, to);
                output::note(&gone(from, to));
            }
            Some(ExecUpdate::Started(_) | ExecUpdate::Interrupted(_)) => {}
            // Output past the limit, or that is not kept any more, does not come.
            Some(ExecUpdate::Ended(_)) | None => break,
        }
    }
    out.flush().await.map_err(VerbError::output)
}

enum Stop {
    Ended(Ended),
    Failed(VerbError),
}

impl From<Ended> for Stop {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<VerbError> for Stop {
    fn from(error: VerbError) -> Self {
        Self::Failed(error)
    }
}

async fn watch(
    api: &Client,
    sandbox: &str,
    request: ExecRequest,
    format: Format,
    out: &LiveOutput,
    control: &mut Control<'_>,
) -> Result<EndRecord, Stop> {
    let mut updates = control.attend(api.exec_stream(sandbox, request)).await??;
    loop {
        let next = async {
            tokio::select! {
                update = updates.next() => Ok(update),
                error = out.closed() => Err(VerbError::output(error)),
            }
        };
        match control.attend(next).await??.transpose()? {
            Some(ExecUpdate::Started(exec)) => control.started(exec),
            Some(ExecUpdate::Output { stream, offset, bytes }) => {
                control.attend(write(out, format, stream, offset, bytes)).await??;
            }
            Some(ExecUpdate::Gone { from, to, .. }) => output::note(&gone(from, to)),
            Some(ExecUpdate::Interrupted(why)) => output::note(&format!("{why}; going on where it stood")),
            Some(ExecUpdate::Ended(end)) => {
                if format == Format::Json {
                    let line = json_line(&end)?;
                    control.attend(out.write(Target::Stdout, line)).await?.map_err(VerbError::output)?;
                }
                control.attend(out.flush()).await?.map_err(VerbError::output)?;
                return Ok(end);
            }
            None => return Err(VerbError::Unexpected("the stream has no end".to_owned()).into()),
        }
    }
}

async fn write(
    out: &LiveOutput,
    format: Format,
    stream: OutputStream,
    offset: u64,
    bytes: Bytes,
) -> Result<(), VerbError> {
    let written = match format {
        Format::Table => out.write(stream.into(), bytes).await,
        Format::Json => out.write(Target::Stdout, json_line(&OutputLine::new(stream, offset, &bytes))?).await,
    };
    written.map_err(VerbError::output)
}
