//! Commands in sandboxes: starting, watching, ending.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::client::Client;
use crate::error::ClientError;
use crate::exec_stream::{ExecStream, Origin};
use crate::key::IdempotencyKey;
use crate::offsets::Offsets;
use crate::patience::Patience;

/// The longest page that a server gives.
const PAGE: usize = 1000;

/// Which execs of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExecsQuery {
    /// Only those that have not ended.
    pub running: bool,
    /// At most so many, the last ones.
    pub last: usize,
}

impl Default for ExecsQuery {
    /// All.
    fn default() -> Self {
        Self { running: false, last: usize::MAX }
    }
}

/// What to run, and how.
///
/// ```
/// use client::ExecRequest;
///
/// let request = ExecRequest::argv(["echo", "a b"]).env("LANG", "C.UTF-8").timeout("30s");
/// let json = serde_json::to_string(&request)?;
/// assert_eq!(json, r#"{"command":"echo","args":["a b"],"mode":"argv","env":{"LANG":"C.UTF-8"},"timeout":"30s"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, Serialize)]
pub struct ExecRequest {
    /// A line for `/bin/sh -c`, or in mode `argv` the program.
    pub command: String,
    /// Arguments. In shell mode they are quoted and appended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// `shell` or `argv`.
    pub mode: &'static str,
    /// Environment variables, over those of the sandbox. Their values are in no event and in no log.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// More of them, whose values are masked in whatever the command writes.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, String>,
    /// The working directory; `/workspace` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// When to end it, as a Go duration (`30s`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Whether to answer with NDJSON while it runs. [`Client::exec_stream`] sets it.
    #[serde(skip_serializing_if = "is_false")]
    pub stream: bool,
    /// Whether to answer with the exec's id at once. [`Client::start_exec`] sets it.
    #[serde(skip_serializing_if = "is_false")]
    pub detach: bool,
    /// Whether stdin stays open for input.
    #[serde(skip_serializing_if = "is_false")]
    pub stdin: bool,
    /// A terminal instead of pipes, where somebody can attach.
    #[serde(skip_serializing_if = "is_false")]
    pub tty: bool,
    /// The size of that terminal.
    #[serde(flatten)]
    pub size: Option<TerminalSize>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// The height.
    pub rows: u16,
    /// The width.
    pub cols: u16,
}

/// An exec, as the record has it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Exec {
    /// Its id: `ex-`.
    pub id: String,
    /// The sandbox that it runs or ran in.
    pub sandbox_id: String,
    /// `pending`, `running`, or how it ended.
    pub state: String,
    /// As in a shell. Absent where it has not run to an end.
    pub exit_code: Option<i32>,
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The size that its terminal was begun with.
    pub tty: Option<TerminalSize>,
    /// When it began.
    pub started_at: Option<DateTime<Utc>>,
    /// How long it ran, as a Go duration.
    pub duration: Option<String>,
    /// What it has written to stdout, in bytes.
    pub stdout_bytes: u64,
    /// The same for stderr.
    pub stderr_bytes: u64,
}

/// The reply of an exec that was waited for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ExecReply {
    /// The exec.
    pub exec_id: String,
    /// As in a shell.
    pub exit_code: i32,
    /// What it wrote, with U+FFFD in place of bytes that are not UTF-8.
    pub stdout: String,
    /// The same of stderr.
    pub stderr: String,
    /// How long it ran, as a Go duration.
    pub duration: String,
}

impl ExecRequest {
    /// A program with its arguments, without a shell.
    pub fn argv(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut words = words.into_iter().map(Into::into);
        let command = words.next().unwrap_or_default();
        Self { command, args: words.collect(), mode: "argv", ..Self::default() }
    }

    /// A line for `/bin/sh -c`.
    pub fn shell(line: impl Into<String>) -> Self {
        Self { command: line.into(), mode: "shell", ..Self::default() }
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Adds one whose value is masked in all that is recorded.
    pub fn secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.secrets.insert(name.into(), value.into());
        self
    }

    /// Sets the working directory.
    pub fn workdir(mut self, path: impl Into<String>) -> Self {
        self.workdir = Some(path.into());
        self
    }

    /// Sets when it is ended, as a Go duration (`30s`, `1h30m`).
    pub fn timeout(mut self, timeout: impl Into<String>) -> Self {
        self.timeout = Some(timeout.into());
        self
    }

    /// Keeps stdin open for input: [`Client::attach`] feeds it.
    pub fn stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// Gives it a terminal of this size.
    pub fn terminal(mut self, size: TerminalSize) -> Self {
        (self.stdin, self.tty, self.size) = (true, true, Some(size));
        self
    }
}

impl Exec {
    /// Whether it runs on a terminal.
    pub const fn has_terminal(&self) -> bool {
        self.tty.is_some()
    }

    /// Whether it has come to an end.
    pub fn has_ended(&self) -> bool {
        !matches!(self.state.as_str(), "pending" | "running")
    }
}

impl Client {
    /// One exec, running or ended, also after its sandbox is gone.
    pub async fn exec(&self, id: &str) -> Result<Exec, ClientError> {
        self.get(&["execs", id]).await
    }

    /// The execs of a sandbox, also of one that is gone: the newest ones, the oldest of them first.
    pub async fn execs(&self, sandbox: &str, query: ExecsQuery) -> Result<Vec<Exec>, ClientError> {
        self.execs_as(sandbox, query).await
    }

    /// The same, each read as the caller wants it: as a `serde_json::Value`, say.
    pub async fn execs_as<T: DeserializeOwned>(
        &self,
        sandbox: &str,
        query: ExecsQuery,
    ) -> Result<Vec<T>, ClientError> {
        #[derive(Deserialize)]
        struct Page<T> {
            execs: Vec<T>,
            next: Option<String>,
        }
        let mut execs = Vec::new();
        let mut before: Option<String> = None;
        while execs.len() < query.last {
            let limit = (query.last - execs.len()).min(PAGE);
            let mut request = self
                .request(Method::GET, self.url(&["sandboxes", sandbox, "execs"]))
                .query(&[("limit", limit)])
                .query(&[("before", before)]);
            if query.running {
                request = request.query(&[("state", "running")]);
            }
            let page: Page<T> = self.fetch(request).await?;
            execs.extend(page.execs);
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        execs.reverse();
        Ok(execs)
    }

    /// Runs a command to its end and answers with all that it wrote. A non-zero exit code is no error.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// let reply = client.run("sb-1", &client::ExecRequest::shell("echo $((6 * 7))")).await?;
    /// assert_eq!((reply.exit_code, reply.stdout.as_str()), (0, "42\n"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run(&self, sandbox: &str, request: &ExecRequest) -> Result<ExecReply, ClientError> {
        self.run_once(sandbox, request).await
    }

    /// Starts a command and follows it to its end. A server that is killed meanwhile is waited for, and no byte is lost or
    /// comes twice. The first connection must succeed.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// use client::{ExecRequest, ExecUpdate};
    ///
    /// let mut exec = client.exec_stream("sb-1", ExecRequest::argv(["make", "test"])).await?;
    /// while let Some(update) = exec.next().await {
    ///     match update? {
    ///         ExecUpdate::Output { bytes, .. } => println!("{}", String::from_utf8_lossy(&bytes)),
    ///         ExecUpdate::Ended(end) => println!("{:?}", end.exit_code),
    ///         ExecUpdate::Started(_) | ExecUpdate::Gone { .. } | ExecUpdate::Interrupted(_) => {}
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn exec_stream(
        &self,
        sandbox: &str,
        mut request: ExecRequest,
    ) -> Result<ExecStream, ClientError> {
        request.stream = true;
        let origin = Origin { sandbox: sandbox.to_owned(), request, key: IdempotencyKey::new() };
        ExecStream::open(self, None, Some(origin), Offsets::default()).await
    }

    /// Follows an exec that was started before, from these offsets on.
    pub async fn follow_exec(&self, exec: &str, offsets: Offsets) -> Result<ExecStream, ClientError> {
        ExecStream::open(self, Some(exec.to_owned()), None, offsets).await
    }

    /// Starts a command that goes on whatever becomes of us, and gives back its id. It is started once, even where the
    /// answer is lost and it is asked for again.
    pub async fn start_exec(&self, sandbox: &str, request: &ExecRequest) -> Result<String, ClientError> {
        #[derive(Deserialize)]
        struct Accepted {
            exec_id: String,
        }
        let request = ExecRequest { stream: false, detach: true, ..request.clone() };
        Ok(self.run_once::<Accepted>(sandbox, &request).await?.exec_id)
    }

    /// Sends a signal to an exec's process group: its name with or without SIG, or its number.
    pub async fn signal_exec(&self, exec: &str, signal: &str) -> Result<(), ClientError> {
        let body = match signal.parse::<i32>() {
            Ok(number) => serde_json::json!({ "signal": number }),
            Err(_) => serde_json::json!({ "signal": signal }),
        };
        let request = self.request(Method::POST, self.url(&["execs", exec, "signal"])).json(&body);
        self.send(request).await.map(drop)
    }

    /// Ends an exec, with all that it started.
    pub async fn kill_exec(&self, exec: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::DELETE, self.url(&["execs", exec]))).await.map(drop)
    }

    /// What breaks is asked for again. It may have been started: with the same key it is not started twice.
    async fn run_once<T: DeserializeOwned>(
        &self,
        sandbox: &str,
        request: &ExecRequest,
    ) -> Result<T, ClientError> {
        let key = IdempotencyKey::new();
        let mut patience = Patience::new(self.patience());
        loop {
            match self.fetch(self.exec_request(sandbox, request, &key)).await {
                Err(ClientError::Broken(error)) => {
                    if !patience.again().await {
                        return Err(ClientError::Broken(error));
                    }
                }
                outcome => return outcome,
            }
        }
    }

    pub(crate) fn exec_request(
        &self,
        sandbox: &str,
        request: &ExecRequest,
        key: &IdempotencyKey,
    ) -> RequestBuilder {
        self.request_once(key, Method::POST, self.url(&["sandboxes", sandbox, "exec"])).json(request)
    }
}
