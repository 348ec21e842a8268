//! One command in a sandbox, from its start to its exit code, over as many connections as that takes.

use std::time::Duration;

use bytes::Bytes;
use events::RequestId;
use futures::StreamExt as _;
use reqwest::Method;
use serde::Deserialize;

use super::api::{Api, IDEMPOTENCY_KEY};
use super::attach::{self, Heed, Outcome, json_line};
use super::command::{ExecRequest, Input};
use super::control::{Control, Ended};
use super::error::ClientError;
use super::execs::Exec;
use super::ndjson::{Records, records};
use super::offsets::Offsets;
use super::patience::Patience;
use super::record::{End, OutputLine, Record};
use super::signals::Signals;
use super::terminal::{self, DetachKeys, output_of_sandboxes};
use crate::output::{self, Format, LiveOutput, Target};

/// How long a server may be away before we stop asking for it.
const RECONNECT: Duration = Duration::from_secs(120);

/// How the session is over.
#[derive(Debug)]
pub enum Finish {
    /// The command ended.
    Ended(End),
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
                if let Some(remark) = end.remark() {
                    output::note(&remark);
                }
                end.exit_code()
            }
            Self::Interrupted(code) => code,
            Self::Detached(exec) => Outcome::Detached.report(&exec),
        }
    }
}

/// Runs a command and writes what it writes; `raw`: to a terminal too as it is.
#[expect(clippy::too_many_arguments, reason = "each is a word of the command line")]
pub async fn run(
    api: &Api,
    sandbox: &str,
    request: ExecRequest,
    input: Input,
    keys: DetachKeys,
    format: Format,
    raw: bool,
    signals: &mut Signals,
) -> Result<Finish, ClientError> {
    let mut control = Control::new(api, signals);
    let outcome = match input {
        Input::Nothing => {
            let out = output_of_sandboxes(raw).map_err(ClientError::local("cannot start a thread"))?;
            watch(api, sandbox, &request, format, &out, &mut control).await.map(Finish::Ended)
        }
        Input::Stdin | Input::Terminal => {
            feed(api, sandbox, request, input, keys, format, &mut control).await
        }
    };
    if let Err(Stop::Failed(ClientError::OutputClosed | ClientError::Local { .. } | ClientError::Failed(_))) =
        &outcome
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

/// Starts a command that goes on whatever becomes of us, and gives back its id.
pub async fn start_detached(api: &Api, sandbox: &str, request: &ExecRequest) -> Result<String, ClientError> {
    #[derive(Deserialize)]
    struct Accepted {
        exec_id: String,
    }
    let key = RequestId::new();
    let mut patience = Patience::new(RECONNECT);
    loop {
        let request = api
            .request(Method::POST, api.url(&["sandboxes", sandbox, "exec"]))
            .header(IDEMPOTENCY_KEY, key.as_str())
            .json(request);
        match api.fetch::<Accepted>(request).await {
            // It may have been started: with the same key it is not started twice.
            Err(ClientError::Broken(error)) => {
                if !patience.again().await {
                    return Err(ClientError::Broken(error));
                }
            }
            outcome => return outcome.map(|accepted| accepted.exec_id),
        }
    }
}

async fn feed(
    api: &Api,
    sandbox: &str,
    request: ExecRequest,
    input: Input,
    keys: DetachKeys,
    format: Format,
    control: &mut Control<'_>,
) -> Result<Finish, Stop> {
    if input == Input::Terminal && !(terminal::is_input() && terminal::is_output()) {
        return Err(ClientError::Usage("--tty needs a terminal on stdin and stdout".to_owned()).into());
    }
    let request = request.detached(input);
    let exec = control.attend(start_detached(api, sandbox, &request)).await??;
    control.started(exec.clone());
    Ok(match attach::follow(api, &exec, input, keys, format, &mut Heed::PassOn(control)).await? {
        Outcome::Ended(end) => Finish::Ended(end),
        Outcome::Detached => Finish::Detached(exec),
        Outcome::Interrupted(code) => Finish::Interrupted(code),
    })
}

/// Writes what a command has written up to now; with `follow` also what comes, until it ends.
pub async fn recorded(
    api: &Api,
    exec: &str,
    format: Format,
    follow: bool,
    raw: bool,
) -> Result<(), ClientError> {
    let out = output_of_sandboxes(raw).map_err(ClientError::local("cannot start a thread"))?;
    let Exec { stdout_bytes, stderr_bytes, .. } = Exec::get(api, exec).await?;
    let mut offsets = Offsets::default();
    let mut patience = Patience::new(RECONNECT);
    let mut records = resume(api, exec, offsets).await?;
    while follow || offsets.stdout < stdout_bytes || offsets.stderr < stderr_bytes {
        let broken = match records.next().await {
            Some(Ok(Record::Output { target, offset, bytes })) => {
                let (offset, bytes) = offsets.take(target, offset, bytes)?;
                write(&out, format, target, offset, bytes).await?;
                patience = Patience::new(RECONNECT);
                continue;
            }
            Some(Ok(Record::Started(_))) => continue,
            Some(Ok(Record::Ended(end))) if end.is_interruption() => None,
            // Output that is not kept any more does not come.
            Some(Ok(Record::Ended(_))) => break,
            None => None,
            Some(Err(error)) => Some(error),
        };
        match broken {
            None if !follow => break,
            Some(error) if !follow || !error.is_passing() => return Err(error),
            None | Some(_) => {}
        }
        records = loop {
            let again = patience.again().await;
            match resume(api, exec, offsets).await {
                Err(error) if again && error.is_passing() => {}
                outcome => break outcome?,
            }
        };
    }
    out.flush().await.map_err(ClientError::output)
}

enum Stop {
    Ended(Ended),
    Failed(ClientError),
}

impl From<Ended> for Stop {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

impl From<ClientError> for Stop {
    fn from(error: ClientError) -> Self {
        Self::Failed(error)
    }
}

async fn watch(
    api: &Api,
    sandbox: &str,
    request: &ExecRequest,
    format: Format,
    out: &LiveOutput,
    control: &mut Control<'_>,
) -> Result<End, Stop> {
    let key = RequestId::new();
    let mut records = control.attend(start(api, sandbox, request, &key)).await??;
    let mut offsets = Offsets::default();
    loop {
        let next = async {
            tokio::select! {
                record = records.next() => Ok(record),
                error = out.closed() => Err(ClientError::output(error)),
            }
        };
        let broken = match control.attend(next).await?? {
            Some(Ok(Record::Started(exec))) => {
                control.started(exec);
                continue;
            }
            Some(Ok(Record::Output { target, offset, bytes })) => {
                let (offset, bytes) = offsets.take(target, offset, bytes)?;
                if !bytes.is_empty() {
                    control.attend(write(out, format, target, offset, bytes)).await??;
                }
                continue;
            }
            Some(Ok(Record::Ended(end))) if !end.is_interruption() => {
                if format == Format::Json {
                    let line = json_line(&end)?;
                    control.attend(out.write(Target::Stdout, line)).await?.map_err(ClientError::output)?;
                }
                control.attend(out.flush()).await?.map_err(ClientError::output)?;
                return Ok(end);
            }
            Some(Ok(Record::Ended(end))) => {
                end.error.map_or_else(|| "the server stops".to_owned(), |error| error.message)
            }
            Some(Err(error)) if error.is_passing() => error.to_string(),
            Some(Err(error)) => return Err(error.into()),
            None => "the stream ended before the command did".to_owned(),
        };
        output::note(&format!("{broken}; going on where it stood"));
        let again = reconnect(api, sandbox, request, &key, control.exec().map(str::to_owned), offsets);
        records = control.attend(again).await??;
    }
}

async fn write(
    out: &LiveOutput,
    format: Format,
    target: Target,
    offset: u64,
    bytes: Bytes,
) -> Result<(), ClientError> {
    let written = match format {
        Format::Table => out.write(target, bytes).await,
        Format::Json => out.write(Target::Stdout, json_line(&OutputLine::new(target, offset, &bytes))?).await,
    };
    written.map_err(ClientError::output)
}

/// Starts it. With the same key again, it is the same command, not a second one.
async fn start(
    api: &Api,
    sandbox: &str,
    request: &ExecRequest,
    key: &RequestId,
) -> Result<Records, ClientError> {
    let request = api
        .request(Method::POST, api.url(&["sandboxes", sandbox, "exec"]))
        .query(&[("records", "all")])
        .header(IDEMPOTENCY_KEY, key.as_str())
        .json(request);
    Ok(records(api, api.send(request).await?))
}

/// Reads on, through whatever gateway answers.
async fn reconnect(
    api: &Api,
    sandbox: &str,
    request: &ExecRequest,
    key: &RequestId,
    exec: Option<String>,
    offsets: Offsets,
) -> Result<Records, ClientError> {
    let mut patience = Patience::new(RECONNECT);
    loop {
        let outcome = match &exec {
            Some(exec) => resume(api, exec, offsets).await,
            None => start(api, sandbox, request, key).await,
        };
        match outcome {
            // An id is known a little before the record has it.
            Err(error) if error.is_passing() || exec.is_some() && error.is_not_found() => {
                if !patience.again().await {
                    return Err(error);
                }
            }
            outcome => return outcome,
        }
    }
}

async fn resume(api: &Api, exec: &str, offsets: Offsets) -> Result<Records, ClientError> {
    let request = api
        .request(Method::GET, api.url(&["execs", exec, "stream"]))
        .query(&[("stdout_offset", offsets.stdout), ("stderr_offset", offsets.stderr)]);
    Ok(records(api, api.send(request).await?))
}
