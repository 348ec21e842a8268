//! The messages of version 1 where they differ from ours, as they were released. Frozen: sandboxes of before an upgrade live on, and their
//! agents speak this. Nothing else in the program knows of it: [`Message`](super::Message) turns one form into the other at the edge.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::message::{self, FilePart};
use super::{
    Attach, Entry, ExecId, FrameError, KillCause, Left, Refusal, SecretValues, Started, Stats, Stream,
    TerminalSize,
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartExec {
    pub exec_id: ExecId,
    pub argv: Vec<String>,
    pub env: Vec<(String, String)>,
    pub cwd: Option<String>,
    pub user: Option<String>,
    pub tty: Option<TerminalSize>,
    pub timeout: Option<Duration>,
    pub stdin: bool,
    pub stdout_offset: u64,
    pub stderr_offset: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Ping,
    Stats,
    SetDeadline {
        remaining: Duration,
    },
    Shutdown {
        grace: Duration,
    },
    StartExec(StartExec),
    AttachExec(Attach),
    SignalExec {
        exec_id: ExecId,
        signal: i32,
    },
    WriteStdin {
        exec_id: ExecId,
        offset: Option<u64>,
        #[serde(skip)]
        bytes: Bytes,
    },
    CloseStdin {
        exec_id: ExecId,
    },
    ResizeExec {
        exec_id: ExecId,
        size: TerminalSize,
    },
    KillExec {
        exec_id: ExecId,
        grace: Duration,
    },
    ListExecs,
    ReadFile {
        path: String,
        offset: u64,
        limit: Option<u64>,
    },
    WriteFile {
        path: String,
        mode: u32,
        size_hint: Option<u64>,
        sync: bool,
    },
    List {
        path: String,
        recursive: bool,
    },
    Stat {
        path: String,
    },
    Delete {
        path: String,
        recursive: bool,
    },
    Move {
        from: String,
        to: String,
    },
    Chmod {
        path: String,
        mode: u32,
    },
    Glob {
        pattern: String,
    },
    Mkdir {
        path: String,
        mode: u32,
    },
    OpenTcp {
        port: u16,
    },
    SetEnvironment {
        env: Vec<(String, String)>,
    },
    StartSecretExec {
        start: StartExec,
        secret_names: Vec<String>,
    },
    Secrets {
        exec_id: Option<ExecId>,
        names: Vec<String>,
    },
    ReadFileEnd {
        path: String,
        last: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Refused(Refusal),
    Stats(Stats),
    Started(Started),
    Output {
        stream: Stream,
        offset: u64,
        #[serde(skip)]
        bytes: Bytes,
    },
    StdinTaken {
        offset: u64,
    },
    Exited(ExecOutcome),
    Superseded,
    Execs(Vec<ExecSummary>),
    File(Entry),
    Chunk {
        #[serde(skip)]
        bytes: Bytes,
    },
    Written {
        size: u64,
    },
    Entries(Vec<Entry>),
    Paths(Vec<String>),
    Listed {
        truncated: bool,
    },
    Connected,
    Secrets(SecretValues),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecEnd {
    Exited { code: i32 },
    Signaled { signal: i32 },
    TimedOut,
    Killed { cause: KillCause },
    TimedOutAs { left: Left },
    KilledAs { cause: KillCause, left: Left },
    OutOfMemory { left: Left },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutcome {
    pub end: ExecEnd,
    pub stdout_len: u64,
    pub stderr_len: u64,
    pub duration: Duration,
    pub cpu_time: Duration,
    pub max_rss_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSummary {
    pub exec_id: ExecId,
    pub pid: u32,
    pub age: Duration,
    pub retained_from: [u64; 2],
    pub produced: [u64; 2],
    pub stdin_offset: u64,
    pub outcome: Option<ExecOutcome>,
}

impl From<Request> for message::Request {
    fn from(request: Request) -> Self {
        match request {
            Request::Ping => Self::Ping,
            Request::Stats => Self::Stats,
            Request::ListExecs => Self::ListExecs,
            Request::AttachExec(attach) => Self::AttachExec(attach),
            Request::SetDeadline { remaining } => Self::SetDeadline { remaining },
            Request::Shutdown { grace } => Self::Shutdown { grace },
            Request::SignalExec { exec_id, signal } => Self::SignalExec { exec_id, signal },
            Request::WriteStdin { exec_id, offset, bytes } => Self::WriteStdin { exec_id, offset, bytes },
            Request::CloseStdin { exec_id } => Self::CloseStdin { exec_id },
            Request::ResizeExec { exec_id, size } => Self::ResizeExec { exec_id, size },
            Request::KillExec { exec_id, grace } => Self::KillExec { exec_id, grace },
            Request::WriteFile { path, mode, size_hint, sync } => {
                Self::WriteFile { path, mode, size_hint, sync }
            }
            Request::List { path, recursive } => Self::List { path, recursive },
            Request::Stat { path } => Self::Stat { path },
            Request::Delete { path, recursive } => Self::Delete { path, recursive },
            Request::Move { from, to } => Self::Move { from, to },
            Request::Chmod { path, mode } => Self::Chmod { path, mode },
            Request::Glob { pattern } => Self::Glob { pattern },
            Request::Mkdir { path, mode } => Self::Mkdir { path, mode },
            Request::OpenTcp { port } => Self::OpenTcp { port },
            Request::SetEnvironment { env } => Self::SetEnvironment { env },
            Request::Secrets { exec_id, names } => Self::Secrets { exec_id, names },
            Request::StartExec(start) => Self::StartExec(start.with(Vec::new())),
            Request::StartSecretExec { start, secret_names } => Self::StartExec(start.with(secret_names)),
            Request::ReadFile { path, offset, limit } => {
                Self::ReadFile { path, part: FilePart::From { offset, limit } }
            }
            Request::ReadFileEnd { path, last } => {
                Self::ReadFile { path, part: FilePart::Last { bytes: last } }
            }
        }
    }
}

impl TryFrom<message::Request> for Request {
    type Error = FrameError;
    fn try_from(request: message::Request) -> Result<Self, FrameError> {
        use message::Request as Ours;
        Ok(match request {
            Ours::Ping => Self::Ping,
            Ours::Stats => Self::Stats,
            Ours::ListExecs => Self::ListExecs,
            Ours::AttachExec(attach) => Self::AttachExec(attach),
            Ours::SetDeadline { remaining } => Self::SetDeadline { remaining },
            Ours::Shutdown { grace } => Self::Shutdown { grace },
            Ours::SignalExec { exec_id, signal } => Self::SignalExec { exec_id, signal },
            Ours::WriteStdin { exec_id, offset, bytes } => Self::WriteStdin { exec_id, offset, bytes },
            Ours::CloseStdin { exec_id } => Self::CloseStdin { exec_id },
            Ours::ResizeExec { exec_id, size } => Self::ResizeExec { exec_id, size },
            Ours::KillExec { exec_id, grace } => Self::KillExec { exec_id, grace },
            Ours::WriteFile { path, mode, size_hint, sync } => {
                Self::WriteFile { path, mode, size_hint, sync }
            }
            Ours::List { path, recursive } => Self::List { path, recursive },
            Ours::Stat { path } => Self::Stat { path },
            Ours::Delete { path, recursive } => Self::Delete { path, recursive },
            Ours::Move { from, to } => Self::Move { from, to },
            Ours::Chmod { path, mode } => Self::Chmod { path, mode },
            Ours::Glob { pattern } => Self::Glob { pattern },
            Ours::Mkdir { path, mode } => Self::Mkdir { path, mode },
            Ours::OpenTcp { port } => Self::OpenTcp { port },
            Ours::SetEnvironment { env } => Self::SetEnvironment { env },
            Ours::Secrets { exec_id, names } => Self::Secrets { exec_id, names },
            Ours::CloseOutput { .. }
            | Ours::OpenInput { .. }
            | Ours::Search(_)
            | Ours::ReadBeneath { .. } => return Err(FrameError::Malformed(UNKNOWN)),
            Ours::StartExec(mut start) => {
                let secret_names = std::mem::take(&mut start.secret_names);
                let start = start.into();
                if secret_names.is_empty() {
                    Self::StartExec(start)
                } else {
                    Self::StartSecretExec { start, secret_names }
                }
            }
            Ours::ReadFile { path, part: FilePart::From { offset, limit } } => {
                Self::ReadFile { path, offset, limit }
            }
            Ours::ReadFile { path, part: FilePart::Last { bytes } } => {
                Self::ReadFileEnd { path, last: bytes }
            }
        })
    }
}

impl StartExec {
    fn with(self, secret_names: Vec<String>) -> message::StartExec {
        let Self { exec_id, argv, env, cwd, user, tty, timeout, stdin, stdout_offset, stderr_offset } = self;
        message::StartExec {
            exec_id,
            argv,
            env,
            cwd,
            user,
            tty,
            timeout,
            stdin,
            stdout_offset,
            stderr_offset,
            secret_names,
            linger: None,
        }
    }
}

impl From<message::StartExec> for StartExec {
    fn from(start: message::StartExec) -> Self {
        let message::StartExec {
            exec_id,
            argv,
            env,
            cwd,
            user,
            tty,
            timeout,
            stdin,
            stdout_offset,
            stderr_offset,
            secret_names: _,
            linger: _,
        } = start;
        Self { exec_id, argv, env, cwd, user, tty, timeout, stdin, stdout_offset, stderr_offset }
    }
}

impl From<Reply> for message::Reply {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Done => Self::Done,
            Reply::Superseded => Self::Superseded,
            Reply::Connected => Self::Connected,
            Reply::Refused(it) => Self::Refused(it),
            Reply::Stats(it) => Self::Stats(it),
            Reply::Started(it) => Self::Started(it),
            Reply::File(it) => Self::File(it),
            Reply::Entries(it) => Self::Entries(it),
            Reply::Paths(it) => Self::Paths(it),
            Reply::Secrets(it) => Self::Secrets(it),
            Reply::Output { stream, offset, bytes } => Self::Output { stream, offset, bytes },
            Reply::StdinTaken { offset } => Self::StdinTaken { offset },
            Reply::Chunk { bytes } => Self::Chunk { bytes },
            Reply::Written { size } => Self::Written { size },
            Reply::Listed { truncated } => Self::Listed { truncated },
            Reply::Exited(outcome) => Self::Exited(outcome.into()),
            Reply::Execs(execs) => Self::Execs(execs.into_iter().map(Into::into).collect()),
        }
    }
}

impl TryFrom<message::Reply> for Reply {
    type Error = FrameError;
    fn try_from(reply: message::Reply) -> Result<Self, FrameError> {
        use message::Reply as Ours;
        Ok(match reply {
            Ours::Done => Self::Done,
            Ours::Superseded => Self::Superseded,
            Ours::Connected => Self::Connected,
            Ours::Refused(it) => Self::Refused(it),
            Ours::Stats(it) => Self::Stats(it),
            Ours::Started(it) => Self::Started(it),
            Ours::File(it) => Self::File(it),
            Ours::Entries(it) => Self::Entries(it),
            Ours::Paths(it) => Self::Paths(it),
            Ours::Secrets(it) => Self::Secrets(it),
            Ours::Output { stream, offset, bytes } => Self::Output { stream, offset, bytes },
            Ours::StdinTaken { offset } => Self::StdinTaken { offset },
            Ours::Chunk { bytes } => Self::Chunk { bytes },
            Ours::Written { size } => Self::Written { size },
            Ours::Listed { truncated } => Self::Listed { truncated },
            // Such a caller asks for no more after an end.
            Ours::Exited(outcome) | Ours::ExitedOpen(outcome) => Self::Exited(outcome.into()),
            Ours::OutputClosed(_) | Ours::Found(_) | Ours::Searched(_) => {
                return Err(FrameError::Malformed(UNKNOWN));
            }
            Ours::Execs(execs) => Self::Execs(execs.into_iter().map(Into::into).collect()),
        })
    }
}

const UNKNOWN: &str = "version 1 has no such message";

/// Before it was said how a process left, it was killed.
const UNSAID: Left = Left::Signal(9);

impl From<ExecEnd> for message::ExecEnd {
    fn from(end: ExecEnd) -> Self {
        match end {
            ExecEnd::Exited { code } => Self::Exited { code },
            ExecEnd::Signaled { signal } => Self::Signaled { signal },
            ExecEnd::TimedOut => Self::TimedOut { left: UNSAID },
            ExecEnd::Killed { cause } => Self::Killed { cause, left: UNSAID },
            ExecEnd::TimedOutAs { left } => Self::TimedOut { left },
            ExecEnd::KilledAs { cause, left } => Self::Killed { cause, left },
            ExecEnd::OutOfMemory { left } => Self::OutOfMemory { left },
        }
    }
}

impl From<message::ExecEnd> for ExecEnd {
    fn from(end: message::ExecEnd) -> Self {
        use message::ExecEnd as Ours;
        match end {
            Ours::Exited { code } => Self::Exited { code },
            Ours::Signaled { signal } => Self::Signaled { signal },
            Ours::TimedOut { left } => Self::TimedOutAs { left },
            Ours::Killed { cause, left } => Self::KilledAs { cause, left },
            Ours::OutOfMemory { left } => Self::OutOfMemory { left },
        }
    }
}

/// Both ways between structs whose fields are the same, some of them in another form.
macro_rules! both_ways {
    ($name:ident { $($field:ident),* } $it:ident => { $($turned:ident: $how:expr),* }) => {
        impl From<$name> for message::$name {
            fn from($it: $name) -> Self {
                Self { $($field: $it.$field,)* $($turned: $how,)* }
            }
        }

        impl From<message::$name> for $name {
            fn from($it: message::$name) -> Self {
                Self { $($field: $it.$field,)* $($turned: $how,)* }
            }
        }
    };
}

both_ways!(ExecOutcome { stdout_len, stderr_len, duration, cpu_time, max_rss_bytes } it => { end: it.end.into() });
both_ways!(ExecSummary { exec_id, pid, age, retained_from, produced, stdin_offset } it => {
    outcome: it.outcome.map(Into::into)
});
