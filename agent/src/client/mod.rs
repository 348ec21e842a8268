//! The caller's side of the protocol.
//!
//! Everything from the agent is taken as hostile: each wait has an end ([`CallError::Silent`]), frames, texts, listings and
//! what all calls to one agent may take together are bounded, and replies out of place and offsets that do not fit are
//! [`CallError::Violation`], never a panic or unbounded memory.

#![allow(clippy::wildcard_enum_match_arm, reason = "every reply out of place is the same violation")]

mod bounds;
mod connect;
mod connections;
mod error;
mod exec;
mod files;
mod input;
mod tunnel;

pub use bounds::{PROMPT, STALL, TURN, WORK};
pub use connect::{Connect, ConnectFuture, Connection, Connector, Peer, UnixConnect, listener};
pub use connections::{Connections, Share};
pub use error::CallError;
pub use exec::{ExecConnection, ExecEvent, ExecReader, ExecWriter};
pub use files::{FileDownload, FileUpload, Listed, Listing, WriteFile};
pub use input::{InputConnection, InputEvent};
pub use tunnel::Tunnel;

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::protocol::{
    Attach, AttachRefusal, ExecId, ExecRefusal, ExecSummary, Hello, OutputEnd, Reply, Request, StartExec,
    StartRefusal, Stats, TerminalSize, TunnelRefusal, WriterId,
};
use bounds::Kind;
use connect::{Acquaintance, Call};

/// Secrets of one exec.
const MOST_SECRETS: usize = 1000;
/// For waits that the caller ends: a century.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Speaks to one agent. Cheap to clone; every call opens its own connection, and all clones share their bounds.
#[derive(Clone)]
pub struct Client {
    agent: Arc<Acquaintance>,
    /// How long the agent has for its first reply, where that is for the caller to say.
    within: Option<Duration>,
    urgent: bool,
}

impl Client {
    /// For an agent that listens on a unix socket; does nothing yet. Paths may be of any length.
    pub fn new(socket: impl AsRef<Path>) -> Self {
        Self::with(UnixConnect::new(socket))
    }

    /// For an agent that is reached in another way.
    pub fn with(connector: impl Into<Connector>) -> Self {
        Self { agent: Arc::new(Acquaintance::with(connector.into())), within: None, urgent: false }
    }

    /// The same, where its connections are of those that its tenant may have on this node.
    pub fn sharing(self, node: Arc<Share>) -> Self {
        Self { agent: Arc::new(self.agent.sharing(node)), ..self }
    }

    /// The same for what this node asks for itself: short calls wait behind no others.
    pub fn urgently(&self) -> Self {
        Self { urgent: true, ..self.clone() }
    }

    /// The same, where the agent has this long from connecting to its first reply: otherwise it has [`PROMPT`], or [`WORK`]
    /// where it has work to do on files and greets within [`PROMPT`].
    pub fn within(&self, limit: Duration) -> Self {
        Self { within: Some(limit), ..self.clone() }
    }

    /// [`new`](Self::new), and checks that an agent of this protocol version answers.
    pub async fn connect(socket: impl AsRef<Path>) -> Result<Self, CallError<Infallible>> {
        let client = Self::new(socket);
        client.ping().await?;
        Ok(client)
    }

    pub async fn ping(&self) -> Result<(), CallError<Infallible>> {
        self.call("ping", &Request::Ping).await?.done().await
    }

    /// What the agent says of itself; it is asked where it was not met yet.
    pub async fn hello(&self) -> Result<Hello, CallError<Infallible>> {
        if self.agent.hello().is_none() {
            self.ping().await?;
        }
        // Whoever answers has said it.
        Ok(self.agent.hello().unwrap_or(Hello::of_version_1()))
    }

    pub async fn stats(&self) -> Result<Stats, CallError<Infallible>> {
        let mut call = self.call("stats", &Request::Stats).await?;
        match call.reply().await? {
            Reply::Stats(stats) => Ok(stats),
            other => Err(call.unexpected(&other)),
        }
    }

    /// Ends the sandbox after `remaining`, whatever happens to the caller.
    pub async fn set_deadline(&self, remaining: Duration) -> Result<(), CallError<Infallible>> {
        self.call("set deadline", &Request::SetDeadline { remaining }).await?.done().await
    }

    /// Gives every exec that is started from now on this environment beneath its own.
    pub async fn set_environment(&self, env: Vec<(String, String)>) -> Result<(), CallError<Infallible>> {
        self.call("set environment", &Request::SetEnvironment { env }).await?.done().await
    }

    /// Ends everything in the sandbox and the agent: SIGTERM, then SIGKILL after `grace`.
    pub async fn shutdown(&self, grace: Duration) -> Result<(), CallError<Infallible>> {
        self.call("shut down", &Request::Shutdown { grace }).await?.done().await
    }

    /// Starts an exec, or attaches to it if it was started before.
    pub async fn start_exec(&self, start: StartExec) -> Result<ExecConnection, CallError<StartRefusal>> {
        let offsets = [start.stdout_offset, start.stderr_offset];
        let call = self.long_call("start exec", &Request::StartExec(start)).await?;
        ExecConnection::begin(call, offsets).await
    }

    /// The values of an exec's secrets; without an exec, of these variables of the sandbox's environment.
    pub async fn secrets(
        &self,
        exec_id: Option<ExecId>,
        names: Vec<String>,
    ) -> Result<Vec<String>, CallError<ExecRefusal>> {
        // An exec has as many as it was started with, which may not be known here.
        let most = if names.is_empty() { MOST_SECRETS } else { names.len() };
        let mut call = self.call("ask for secrets", &Request::Secrets { exec_id, names }).await?;
        match call.reply().await? {
            // Each costs whoever looks for it in all output.
            Reply::Secrets(values) if values.0.len() <= most => Ok(values.0),
            other => Err(call.unexpected(&other)),
        }
    }

    /// Goes on with an exec's output from the given offsets and cuts off whoever was attached.
    pub async fn attach_exec(&self, attach: Attach) -> Result<ExecConnection, CallError<AttachRefusal>> {
        let offsets = [attach.stdout_offset, attach.stderr_offset];
        let call = self.long_call("attach exec", &Request::AttachExec(attach)).await?;
        ExecConnection::begin(call, offsets).await
    }

    /// Sends a signal to the exec's process group.
    pub async fn signal_exec(&self, exec_id: ExecId, signal: i32) -> Result<(), CallError<ExecRefusal>> {
        self.call("signal exec", &Request::SignalExec { exec_id, signal }).await?.done().await
    }

    /// Kills the exec's process tree: SIGTERM, then SIGKILL after `grace`. Returns once begun; the
    /// end comes as the exec's outcome.
    pub async fn kill_exec(&self, exec_id: ExecId, grace: Duration) -> Result<(), CallError<ExecRefusal>> {
        self.call("kill exec", &Request::KillExec { exec_id, grace }).await?.done().await
    }

    /// Writes to an exec's stdin, any amount; returns once all was taken, which takes as long as the exec lets it wait: it
    /// is for the caller to give up. With an offset (that of the first byte in the exec's stdin) a repeated write writes
    /// nothing twice.
    pub async fn write_stdin(
        &self,
        exec_id: ExecId,
        mut offset: Option<u64>,
        mut bytes: Bytes,
    ) -> Result<(), CallError<ExecRefusal>> {
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(crate::protocol::MAX_CHUNK));
            let next = offset.map(|at| at.saturating_add(chunk.len() as u64));
            let request = Request::WriteStdin { exec_id, offset, bytes: chunk };
            // The process may be asleep: there is no telling it from an agent that is.
            let call = self.within(FOR_EVER);
            call.long_call("write stdin", &request).await?.done().await?;
            offset = next;
        }
        Ok(())
    }

    /// Closes the output of an exec that has ended with it open; the news of it comes as [`ExecEvent::OutputClosed`].
    pub async fn close_output(
        &self,
        exec_id: ExecId,
        reason: OutputEnd,
    ) -> Result<(), CallError<ExecRefusal>> {
        self.call("close output", &Request::CloseOutput { exec_id, reason }).await?.done().await
    }

    /// Opens a stream of input to an exec, or the same one again after it broke.
    pub async fn open_input(
        &self,
        exec_id: ExecId,
        writer: WriterId,
    ) -> Result<InputConnection, CallError<ExecRefusal>> {
        let call = self.long_call("open input", &Request::OpenInput { exec_id, writer }).await?;
        InputConnection::begin(call).await
    }

    pub async fn close_stdin(&self, exec_id: ExecId) -> Result<(), CallError<ExecRefusal>> {
        self.call("close stdin", &Request::CloseStdin { exec_id }).await?.done().await
    }

    pub async fn resize_exec(
        &self,
        exec_id: ExecId,
        size: TerminalSize,
    ) -> Result<(), CallError<ExecRefusal>> {
        self.call("resize exec", &Request::ResizeExec { exec_id, size }).await?.done().await
    }

    /// Every exec that the agent knows, the ended ones that it remembers included.
    pub async fn list_execs(&self) -> Result<Vec<ExecSummary>, CallError<Infallible>> {
        /// More than any agent of ours remembers; a hostile one must not fill our memory.
        const MOST: usize = 100_000;
        let mut call = self.call("list execs", &Request::ListExecs).await?;
        let mut execs = Vec::new();
        loop {
            match call.reply().await? {
                Reply::Execs(batch) if !batch.is_empty() && execs.len() + batch.len() <= MOST => {
                    execs.extend(batch);
                }
                Reply::Done => return Ok(execs),
                other => return Err(call.unexpected(&other)),
            }
        }
    }

    /// Connects to a port on the sandbox's loopback.
    pub async fn open_tcp(&self, port: u16) -> Result<Tunnel, CallError<TunnelRefusal>> {
        let mut call = self.long_call("open tunnel", &Request::OpenTcp { port }).await?;
        match call.reply().await? {
            Reply::Connected => Ok(Tunnel::new(call)),
            other => Err(call.unexpected(&other)),
        }
    }

    async fn call<E>(&self, operation: &'static str, request: &Request) -> Result<Call, CallError<E>> {
        self.open((operation, Kind::Short, PROMPT), request).await
    }

    /// For an operation that lasts as long as an exec does.
    async fn long_call<E>(&self, operation: &'static str, request: &Request) -> Result<Call, CallError<E>> {
        self.open((operation, Kind::Long, PROMPT), request).await
    }

    /// For an operation that is answered when work on any number of files is done.
    async fn work_call<E>(&self, operation: &'static str, request: &Request) -> Result<Call, CallError<E>> {
        self.open((operation, Kind::Short, WORK), request).await
    }

    async fn open<E>(
        &self,
        (operation, kind, limit): (&'static str, Kind, Duration),
        request: &Request,
    ) -> Result<Call, CallError<E>> {
        let kind = if self.urgent && kind == Kind::Short { Kind::Urgent } else { kind };
        let asked = (operation, kind, self.within.unwrap_or(limit));
        Call::open(&self.agent, asked, request).await
    }
}
