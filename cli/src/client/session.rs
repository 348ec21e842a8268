//! One command in a sandbox, from its start to its exit code, over as many connections as that takes.

use std::time::Duration;

use bytes::Bytes;
use events::RequestId;
use futures::StreamExt as _;
use reqwest::Method;
use serde::Serialize;

use super::api::{Api, IDEMPOTENCY_KEY};
use super::command::{ExecRequest, Input};
use super::control::{Control, Ended};
use super::error::ClientError;
use super::ndjson::{Records, records};
use super::patience::Patience;
use super::record::{End, OutputLine, Record};
use super::signals::Signals;
use super::terminal::{self, RawMode};
use super::websocket;
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
        }
    }
}

/// Where the reading of both streams stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Offsets {
    stdout: u64,
    stderr: u64,
}

impl Offsets {
    /// Takes a chunk, and gives back what of it is new and where that stands.
    fn take(
        &mut self,
        target: Target,
        offset: Option<u64>,
        bytes: Bytes,
    ) -> Result<(u64, Bytes), ClientError> {
        let at = match target {
            Target::Stdout => &mut self.stdout,
            Target::Stderr => &mut self.stderr,
        };
        let offset = offset.unwrap_or(*at);
        let known = at
            .checked_sub(offset)
            .ok_or_else(|| ClientError::Unexpected(format!("output is missing: {offset} follows on {at}")))?;
        let known = usize::try_from(known).unwrap_or(usize::MAX).min(bytes.len());
        let fresh = bytes.slice(known..);
        let start = *at;
        *at += fresh.len() as u64;
        Ok((start, fresh))
    }
}

/// Runs a command and writes what it writes.
pub async fn run(
    api: &Api,
    sandbox: &str,
    request: &ExecRequest,
    input: Input,
    format: Format,
    signals: &mut Signals,
) -> Result<Finish, ClientError> {
    let out = LiveOutput::start().map_err(ClientError::local("cannot start a thread"))?;
    let mut control = Control::new(api, signals);
    let outcome = converse(api, sandbox, request, input, format, &out, &mut control).await;
    if let Err(Stop::Failed(ClientError::OutputClosed | ClientError::Local { .. })) = &outcome {
        // As a process on this machine would be ended whose reader has gone away.
        control.kill("SIGTERM").await;
    }
    match outcome {
        Ok(end) => Ok(Finish::Ended(end)),
        Err(Stop::Ended(Ended(code))) => Ok(Finish::Interrupted(code)),
        Err(Stop::Failed(error)) => Err(error),
    }
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

impl<E: Into<ClientError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

async fn converse(
    api: &Api,
    sandbox: &str,
    request: &ExecRequest,
    input: Input,
    format: Format,
    out: &LiveOutput,
    control: &mut Control<'_>,
) -> Result<End, Stop> {
    let key = RequestId::new();
    let first = async {
        match input {
            Input::Nothing => start(api, sandbox, request, &key).await,
            Input::Stdin => websocket::start(api, sandbox, request, None).await,
            Input::Terminal => websocket::start(api, sandbox, request, Some(terminal::size())).await,
        }
    };
    // Given back whichever way this ends.
    let mut raw_mode = match input {
        Input::Terminal => Some(RawMode::enter()?),
        Input::Nothing | Input::Stdin => None,
    };
    let mut records = control.attend(first).await??;
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
        drop(raw_mode.take());
        match input {
            Input::Nothing => output::note(&format!("{broken}; going on where it stood")),
            // What was on its way to the command is lost, and sending more would leave a hole.
            Input::Stdin | Input::Terminal => {
                output::note(&format!("{broken}; going on where it stood, without further input"));
            }
        }
        let again = reconnect(api, sandbox, request, input, &key, control.exec().map(str::to_owned), offsets);
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

fn json_line(value: &impl Serialize) -> Result<Bytes, ClientError> {
    let mut line = serde_json::to_vec(value).map_err(|error| ClientError::Unexpected(error.to_string()))?;
    line.push(b'\n');
    Ok(line.into())
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
        .header(IDEMPOTENCY_KEY, key.as_str())
        .json(request);
    Ok(records(api, api.send(request).await?))
}

/// Reads on, through whatever gateway answers.
async fn reconnect(
    api: &Api,
    sandbox: &str,
    request: &ExecRequest,
    input: Input,
    key: &RequestId,
    exec: Option<String>,
    offsets: Offsets,
) -> Result<Records, ClientError> {
    let mut patience = Patience::new(RECONNECT);
    loop {
        let outcome = match &exec {
            Some(exec) => resume(api, exec, offsets).await,
            None if input != Input::Nothing => {
                let message =
                    "the connection broke before the command had an id: nobody can say whether it runs";
                return Err(ClientError::Failed(message.to_owned()));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_taken_once() {
        let mut offsets = Offsets::default();
        let mut take = |target, offset, text: &'static str| {
            offsets.take(target, offset, Bytes::from(text)).map(|(at, bytes)| (at, bytes.to_vec()))
        };
        assert_eq!(take(Target::Stdout, Some(0), "abc").unwrap(), (0, b"abc".to_vec()));
        assert_eq!(take(Target::Stderr, Some(0), "e").unwrap(), (0, b"e".to_vec()));
        assert_eq!(take(Target::Stdout, Some(1), "bcd").unwrap(), (3, b"d".to_vec()));
        assert_eq!(take(Target::Stdout, Some(0), "abcd").unwrap(), (4, Vec::new()));
        assert_eq!(take(Target::Stdout, Some(4), "e").unwrap(), (4, b"e".to_vec()));
        assert_eq!(take(Target::Stdout, None, "f").unwrap(), (5, b"f".to_vec()));
        assert!(take(Target::Stdout, Some(7), "h").is_err(), "a gap is not passed over");
    }
}
