//! One command in a sandbox, from its start to its exit code, over as many connections as that takes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use events::RequestId;
use futures::StreamExt as _;
use reqwest::Method;
use serde::Serialize;

use super::api::{Api, IDEMPOTENCY_KEY};
use super::arguments::EnvPair;
use super::control::{Control, Ended};
use super::error::ClientError;
use super::ndjson::{Records, records};
use super::patience::Patience;
use super::record::{End, OutputLine, Record};
use super::signals::Signals;
use super::websocket;
use crate::output::{self, Format, LiveOutput, Target};

/// How long a server may be away before we stop asking for it.
const RECONNECT: Duration = Duration::from_secs(120);

/// How a command shall run.
#[derive(Debug, Clone, clap::Args)]
pub struct CommandArgs {
    /// Environment variable for the command; NAME alone takes the value that it has here. May be repeated.
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub env: Vec<EnvPair>,
    /// Working directory [default: /workspace].
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// End the command after this time (30s, 1h30m); the exit code is then 124.
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
    /// Pass stdin on to the command.
    #[arg(long, short)]
    pub interactive: bool,
    /// Hand the command to /bin/sh -c; further words are quoted and appended.
    #[arg(long)]
    pub shell: bool,
}

/// The body of an exec request.
#[derive(Debug, Clone, Serialize)]
pub struct ExecRequest {
    command: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<String>,
    mode: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workdir: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    stream: bool,
}

/// How the session is over.
#[derive(Debug)]
pub enum Finish {
    /// The command ended.
    Ended(End),
    /// We do not wait for it any more.
    Interrupted(u8),
}

impl ExecRequest {
    /// The request that the command line means.
    pub fn new(mut words: Vec<String>, args: &CommandArgs) -> Result<Self, ClientError> {
        if words.is_empty() {
            return Err(ClientError::Usage(
                "the command is missing: put it after --".to_owned(),
            ));
        }
        let command = words.remove(0);
        Ok(Self {
            command,
            args: words,
            mode: if args.shell { "shell" } else { "argv" },
            env: args
                .env
                .iter()
                .map(|pair| (pair.name.clone(), pair.value.clone()))
                .collect(),
            workdir: args.workdir.clone(),
            timeout: args.timeout.clone(),
            stream: true,
        })
    }
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
    interactive: bool,
    format: Format,
    signals: &mut Signals,
) -> Result<Finish, ClientError> {
    let out = LiveOutput::start().map_err(ClientError::local("cannot start a thread"))?;
    let mut control = Control::new(api, signals);
    let outcome = converse(api, sandbox, request, interactive, format, &out, &mut control).await;
    if let Err(Stop::Failed(ClientError::OutputClosed(_))) = &outcome {
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
    interactive: bool,
    format: Format,
    out: &LiveOutput,
    control: &mut Control<'_>,
) -> Result<End, Stop> {
    let key = RequestId::new();
    let first = async {
        if interactive {
            websocket::start(api, sandbox, request).await
        } else {
            start(api, sandbox, request, &key).await
        }
    };
    let mut records = control.attend(first).await??;
    let mut offsets = Offsets::default();
    loop {
        let next = async {
            tokio::select! {
                record = records.next() => Ok(record),
                () = out.closed() => Err(output::OutputClosed),
            }
        };
        let broken = match control.attend(next).await?? {
            Some(Ok(Record::Started(exec))) => {
                control.started(exec);
                continue;
            }
            Some(Ok(Record::Output {
                target,
                offset,
                bytes,
            })) => {
                let (offset, bytes) = offsets.take(target, offset, bytes)?;
                if !bytes.is_empty() {
                    control
                        .attend(write(out, format, target, offset, bytes))
                        .await??;
                }
                continue;
            }
            Some(Ok(Record::Ended(end))) if !end.is_interruption() => {
                if format == Format::Json {
                    control
                        .attend(out.write(Target::Stdout, json_line(&end)?))
                        .await??;
                }
                control.attend(out.flush()).await??;
                return Ok(end);
            }
            Some(Ok(Record::Ended(end))) => end.error.map_or_else(String::new, |error| error.message),
            Some(Err(error)) if error.is_passing() => error.to_string(),
            Some(Err(error)) => return Err(error.into()),
            None => "it ended before the command did".to_owned(),
        };
        output::note(&format!("the stream broke ({broken}): going on where it stood"));
        let again = reconnect(
            api,
            sandbox,
            request,
            interactive,
            &key,
            control.exec().map(str::to_owned),
            offsets,
        );
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
    match format {
        Format::Table => out.write(target, bytes).await?,
        Format::Json => {
            out.write(
                Target::Stdout,
                json_line(&OutputLine::new(target, offset, &bytes))?,
            )
            .await?
        }
    }
    Ok(())
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
    interactive: bool,
    key: &RequestId,
    exec: Option<String>,
    offsets: Offsets,
) -> Result<Records, ClientError> {
    let mut patience = Patience::new(RECONNECT);
    loop {
        let outcome = match &exec {
            Some(exec) => resume(api, exec, offsets).await,
            None if interactive => {
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
        .query(&[
            ("stdout_offset", offsets.stdout),
            ("stderr_offset", offsets.stderr),
        ]);
    Ok(records(api, api.send(request).await?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> CommandArgs {
        CommandArgs {
            env: Vec::new(),
            workdir: None,
            timeout: None,
            interactive: false,
            shell: false,
        }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn argv_is_the_default_and_shell_is_asked_for() {
        let json = |args: &CommandArgs| {
            serde_json::to_string(&ExecRequest::new(words(&["echo", "a b"]), args).unwrap()).unwrap()
        };
        assert_eq!(
            json(&args()),
            r#"{"command":"echo","args":["a b"],"mode":"argv","stream":true}"#
        );
        let full = CommandArgs {
            env: vec!["A=1".parse().unwrap(), "A=2".parse().unwrap()],
            workdir: Some("/tmp".to_owned()),
            timeout: Some("3s".to_owned()),
            interactive: true,
            shell: true,
        };
        assert_eq!(
            json(&full),
            r#"{"command":"echo","args":["a b"],"mode":"shell","env":{"A":"2"},"workdir":"/tmp","timeout":"3s","stream":true}"#
        );
        assert!(matches!(
            ExecRequest::new(Vec::new(), &args()),
            Err(ClientError::Usage(_))
        ));
    }

    #[test]
    fn each_byte_is_taken_once() {
        let mut offsets = Offsets::default();
        let mut take = |target, offset, text: &'static str| {
            offsets
                .take(target, offset, Bytes::from(text))
                .map(|(at, bytes)| (at, bytes.to_vec()))
        };
        assert_eq!(
            take(Target::Stdout, Some(0), "abc").unwrap(),
            (0, b"abc".to_vec())
        );
        assert_eq!(take(Target::Stderr, Some(0), "e").unwrap(), (0, b"e".to_vec()));
        assert_eq!(take(Target::Stdout, Some(1), "bcd").unwrap(), (3, b"d".to_vec()));
        assert_eq!(take(Target::Stdout, Some(0), "abcd").unwrap(), (4, Vec::new()));
        assert_eq!(take(Target::Stdout, Some(4), "e").unwrap(), (4, b"e".to_vec()));
        assert_eq!(take(Target::Stdout, None, "f").unwrap(), (5, b"f".to_vec()));
        assert!(
            take(Target::Stdout, Some(7), "h").is_err(),
            "a gap is not passed over"
        );
    }
}
