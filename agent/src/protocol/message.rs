use std::time::Duration;
use std::{fmt, io};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Features, FoundFile, FrameError, Refusal, Search, Searched, version_1};

/// A message that may be followed by raw bytes in its frame.
pub trait Message: Serialize + DeserializeOwned {
    /// Its form in this version of the protocol, without the raw bytes.
    fn write(&self, _version: u32, to: impl io::Write) -> Result<(), FrameError> {
        put(self, to)
    }
    /// Reads that form, and says what comes after it.
    fn read(_version: u32, frame: &[u8]) -> Result<(Self, &[u8]), FrameError> {
        get(frame)
    }
    /// The raw bytes of this message, if its kind carries any.
    fn payload(&self) -> Option<&Bytes>;
    /// Where decoding puts them.
    fn payload_mut(&mut self) -> Option<&mut Bytes>;
}

pub(super) fn put(message: &impl Serialize, to: impl io::Write) -> Result<(), FrameError> {
    postcard::to_io(message, to).map(|_| ()).map_err(|_| FrameError::Malformed("message cannot be encoded"))
}

pub(super) fn get<M: DeserializeOwned>(frame: &[u8]) -> Result<(M, &[u8]), FrameError> {
    postcard::take_from_bytes(frame).map_err(|_| FrameError::Malformed("not a known message"))
}

/// Names one execution; chosen by the caller, unique for the life of the sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExecId(pub [u8; 16]);

impl fmt::Display for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ExecId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExecId({self})")
    }
}

impl From<[u8; 16]> for ExecId {
    fn from(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// Position in an array with one element per stream.
    pub fn index(self) -> usize {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
        }
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub cols: u16,
}

/// What to run. Build it with [`StartExec::new`] and set what differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartExec {
    pub exec_id: ExecId,
    /// Program and arguments; the program is looked up in the exec's own `PATH`.
    pub argv: Vec<String>,
    /// The whole environment; `PATH` and `HOME` are added when missing.
    pub env: Vec<(String, String)>,
    /// Working directory; the agent's workspace when absent, and relative to it.
    pub cwd: Option<String>,
    /// `uid`, `uid:gid`, `name` or `name:group`; the agent's own user when absent.
    pub user: Option<String>,
    /// Run on a new terminal of this size; its output is all `Stdout`.
    pub tty: Option<TerminalSize>,
    /// The whole process tree is killed after this long, and the outcome is `TimedOut`.
    pub timeout: Option<Duration>,
    /// Open a pipe for stdin; otherwise it is `/dev/null`.
    pub stdin: bool,
    /// Where to go on if this exec was started before.
    pub stdout_offset: u64,
    pub stderr_offset: u64,
    /// Which variables of `env` are secrets. [`Secrets`](Request::Secrets) gives their values back as long as the exec is not spent.
    pub secret_names: Vec<String>,
    /// The exec ends this long after its main process at the latest ([`MAX_LINGER`](super::MAX_LINGER) at most), whatever that has
    /// left running. What is written from then on is output of this exec too: see [`Reply::ExitedOpen`]. Absent: the end waits until
    /// all are quiet, and what is written after it is thrown away.
    pub linger: Option<Duration>,
}

impl StartExec {
    pub fn new<S: Into<String>>(exec_id: ExecId, argv: impl IntoIterator<Item = S>) -> Self {
        Self {
            exec_id,
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            tty: None,
            timeout: None,
            stdin: false,
            stdout_offset: 0,
            stderr_offset: 0,
            secret_names: Vec::new(),
            linger: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    pub exec_id: ExecId,
    pub stdout_offset: u64,
    pub stderr_offset: u64,
}

/// The operation that a connection is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Ping,
    Stats,
    /// The sandbox ends after this long, counted on the boot clock from now; replaces the deadline
    /// set before.
    SetDeadline {
        remaining: Duration,
    },
    /// SIGTERM to everything, SIGKILL after `grace`, then the agent ends.
    Shutdown {
        grace: Duration,
    },
    StartExec(StartExec),
    AttachExec(Attach),
    /// Send a signal to the process group.
    SignalExec {
        exec_id: ExecId,
        signal: i32,
    },
    WriteStdin {
        exec_id: ExecId,
        /// Stdin offset of the first byte; bytes already taken are skipped. Absent: append.
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
    /// SIGTERM to the process tree, SIGKILL after `grace`. Answered once it was begun.
    KillExec {
        exec_id: ExecId,
        grace: Duration,
    },
    ListExecs,
    ReadFile {
        path: String,
        part: FilePart,
    },
    WriteFile {
        path: String,
        mode: u32,
        /// Expected size; space is reserved where the file system can.
        size_hint: Option<u64>,
        /// fsync before the rename.
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
    /// Connect to 127.0.0.1:port inside.
    OpenTcp {
        port: u16,
    },
    /// What every exec started from now on gets beneath its own environment. Kept in the agent's memory only.
    SetEnvironment {
        env: Vec<(String, String)>,
    },
    /// The values of an exec's secrets; without an exec, of these variables of the sandbox's environment. For a caller
    /// that takes the sandbox over and masks them.
    Secrets {
        exec_id: Option<ExecId>,
        names: Vec<String>,
    },
    /// Closes the output of an exec that has ended with it open. What holds it open goes on, and what it writes is thrown away.
    CloseOutput {
        exec_id: ExecId,
        reason: OutputEnd,
    },
    /// Input of one writer, for as long as the connection lasts: the caller sends `Stdin`\*, `CloseStdin`. Each `StdinTaken` tells how many
    /// bytes of this writer were taken so far, the first one before it has sent any: a writer whose connection broke opens another one
    /// and goes on from there. The newest connection of a writer cuts off the one before.
    OpenInput {
        exec_id: ExecId,
        writer: WriterId,
    },
    /// Looks for regular files below a directory.
    Search(Search),
    /// Reads a regular file below a directory, without following a symlink on the way down.
    ReadBeneath {
        directory: String,
        path: String,
        /// Most bytes to send.
        limit: u64,
    },
}

/// What of a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FilePart {
    From {
        offset: u64,
        /// Most bytes to send; all when absent.
        limit: Option<u64>,
    },
    /// So many before the end, as it is when the file is opened.
    Last { bytes: u64 },
}

impl Request {
    /// What an agent must be able to do for this. Whoever has not said so is not asked.
    pub fn needs(&self) -> Features {
        match self {
            Self::StartExec(start) => {
                let secrets = if start.secret_names.is_empty() { Features::NONE } else { Features::SECRETS };
                let open = if start.linger.is_none() { Features::NONE } else { Features::OPEN_OUTPUT };
                secrets.and(open)
            }
            Self::CloseOutput { .. } => Features::OPEN_OUTPUT,
            Self::OpenInput { .. } => Features::INPUT_STREAM,
            Self::Secrets { .. } => Features::SECRETS,
            Self::Search(_) | Self::ReadBeneath { .. } => Features::SEARCH,
            Self::ReadFile { part: FilePart::Last { .. }, .. } => Features::READ_END,
            Self::Ping
            | Self::Stats
            | Self::SetDeadline { .. }
            | Self::Shutdown { .. }
            | Self::AttachExec(_)
            | Self::SignalExec { .. }
            | Self::WriteStdin { .. }
            | Self::CloseStdin { .. }
            | Self::ResizeExec { .. }
            | Self::KillExec { .. }
            | Self::ListExecs
            | Self::ReadFile { part: FilePart::From { .. }, .. }
            | Self::WriteFile { .. }
            | Self::List { .. }
            | Self::Stat { .. }
            | Self::Delete { .. }
            | Self::Move { .. }
            | Self::Chmod { .. }
            | Self::Glob { .. }
            | Self::Mkdir { .. }
            | Self::OpenTcp { .. }
            | Self::SetEnvironment { .. } => Features::NONE,
        }
    }
}

/// What a caller sends after its request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Bytes below `offset` are safe elsewhere and may be released.
    Ack {
        stream: Stream,
        offset: u64,
    },
    Stdin {
        #[serde(skip)]
        bytes: Bytes,
    },
    CloseStdin,
    Resize {
        size: TerminalSize,
    },
    Signal {
        signal: i32,
    },
    /// Next bytes of an upload.
    Chunk {
        #[serde(skip)]
        bytes: Bytes,
    },
    /// End of an upload: put the file in place.
    Commit,
}

/// What the agent answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    Done,
    Refused(Refusal),
    Stats(Stats),
    Started(Started),
    Output {
        stream: Stream,
        /// Position of the first byte in its stream.
        offset: u64,
        #[serde(skip)]
        bytes: Bytes,
    },
    /// All stdin below `offset` has been taken.
    StdinTaken {
        offset: u64,
    },
    Exited(ExecOutcome),
    /// A newer attach owns the exec; this connection is over.
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
    /// End of a listing; `truncated` when there was more than fits.
    Listed {
        truncated: bool,
    },
    Connected,
    Secrets(SecretValues),
    /// `Exited`, where something that it has left running holds its output open. More `Output` follows, and in the end `OutputClosed`.
    ExitedOpen(ExecOutcome),
    /// Nothing more comes after `ExitedOpen`.
    OutputClosed(ClosedOutput),
    /// Files that match.
    Found(Vec<FoundFile>),
    /// The end of a search.
    Searched(Searched),
}

/// Names somebody who writes to an exec's stdin; chosen by the caller, unique among the writers of the exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WriterId(pub [u8; 16]);

/// Why the output of an exec that had ended is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutputEnd {
    /// Nobody holds it open any more.
    Eof,
    /// A client closed it.
    Request,
    /// More execs have left theirs open than are kept, and this was the oldest.
    TooMany,
    /// Whoever reads it wants no more of it.
    Limit,
    /// The sandbox ends.
    Sandbox,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedOutput {
    pub reason: OutputEnd,
    pub stdout_len: u64,
    pub stderr_len: u64,
}

/// Values that no message shows when it is printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretValues(pub Vec<String>);

impl fmt::Debug for SecretValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Pid inside the sandbox; 0 when the program could not be executed (exit 126, 127).
    pub pid: u32,
    /// How long ago it started, on the boot clock.
    pub age: Duration,
    /// Stdin taken so far: where `WriteStdin` goes on.
    pub stdin_offset: u64,
    /// False when this start found the exec already there.
    pub fresh: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KillCause {
    /// `KillExec`.
    Request,
    /// The agent shut down or met its deadline.
    Shutdown,
}

/// How an exec ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExecEnd {
    Exited {
        code: i32,
    },
    Signaled {
        signal: i32,
    },
    /// Its time was up, and this became of it.
    TimedOut {
        left: Left,
    },
    /// It was asked to end, and this became of it.
    Killed {
        cause: KillCause,
        left: Left,
    },
    /// The memory of the sandbox was used up, and the kernel ended the main process or one that it waited for.
    OutOfMemory {
        left: Left,
    },
}

/// How a process left, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Left {
    /// By itself.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl Left {
    /// The code a shell would show.
    pub fn exit_code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

impl ExecEnd {
    /// The code a shell would show: 128 plus the signal, 124 after a timeout.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Exited { code } => *code,
            Self::Signaled { signal } => 128 + signal,
            Self::TimedOut { left: _ } => 124,
            Self::Killed { cause: _, left } | Self::OutOfMemory { left } => left.exit_code(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecOutcome {
    pub end: ExecEnd,
    pub stdout_len: u64,
    pub stderr_len: u64,
    /// From start until the main process ended.
    pub duration: Duration,
    /// Of the main process and the children it waited for.
    pub cpu_time: Duration,
    pub max_rss_bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSummary {
    pub exec_id: ExecId,
    pub pid: u32,
    pub age: Duration,
    /// First bytes still held, per stream (stdout, stderr).
    pub retained_from: [u64; 2],
    /// Bytes produced so far, per stream.
    pub produced: [u64; 2],
    pub stdin_offset: u64,
    /// Present once it has ended and all its output was read.
    pub outcome: Option<ExecOutcome>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub name: String,
    /// Absolute.
    pub path: String,
    pub size: u64,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Of what a symlink points to, where it points to something.
    pub is_dir: bool,
    pub is_symlink: bool,
    /// Seconds since 1970, negative before.
    pub modified_unix_seconds: i64,
    pub modified_nanos: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatsSource {
    CgroupV1,
    CgroupV2,
    /// Summed over the processes that can be seen.
    Proc,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub source: StatsSource,
    /// Since the sandbox began.
    pub cpu_time: Duration,
    pub memory_bytes: u64,
    pub memory_limit_bytes: Option<u64>,
    pub processes: u32,
    pub agent_rss_bytes: u64,
    /// Since the agent began, on the boot clock.
    pub uptime: Duration,
    /// Time to the deadline, if one is set.
    pub deadline_in: Option<Duration>,
}

/// What had another form in version 1.
macro_rules! in_version_1 {
    ($before:ty) => {
        fn write(&self, version: u32, to: impl io::Write) -> Result<(), FrameError> {
            if version > 1 { put(self, to) } else { put(&<$before>::try_from(self.clone())?, to) }
        }
        fn read(version: u32, frame: &[u8]) -> Result<(Self, &[u8]), FrameError> {
            if version > 1 {
                return get(frame);
            }
            let (message, rest) = get::<$before>(frame)?;
            Ok((message.into(), rest))
        }
    };
}

/// One list of the variants with bytes, for both borrows: the two must never differ.
macro_rules! payload {
    ($message:ty $(, $before:ty)?: $($with:pat => $bytes:ident),+; $($without:pat),+ $(,)?) => {
        impl Message for $message {
            $(in_version_1!($before);)?
            fn payload(&self) -> Option<&Bytes> {
                match self {
                    $($with => Some($bytes),)+
                    $($without => None,)+
                }
            }
            fn payload_mut(&mut self) -> Option<&mut Bytes> {
                match self {
                    $($with => Some($bytes),)+
                    $($without => None,)+
                }
            }
        }
    };
}

payload!(Request, version_1::Request:
    Self::WriteStdin { exec_id: _, offset: _, bytes } => bytes;
    Self::Ping, Self::Stats, Self::SetDeadline { .. }, Self::Shutdown { .. }, Self::StartExec(_),
    Self::AttachExec(_), Self::SignalExec { .. }, Self::CloseStdin { .. }, Self::ResizeExec { .. },
    Self::KillExec { .. }, Self::ListExecs, Self::ReadFile { .. }, Self::WriteFile { .. }, Self::List { .. },
    Self::Stat { .. }, Self::Delete { .. }, Self::Move { .. }, Self::Chmod { .. }, Self::Glob { .. },
    Self::Mkdir { .. }, Self::OpenTcp { .. }, Self::SetEnvironment { .. },
    Self::Secrets { .. }, Self::CloseOutput { .. }, Self::OpenInput { .. }, Self::Search(_), Self::ReadBeneath { .. },
);

payload!(Input:
    Self::Stdin { bytes } => bytes, Self::Chunk { bytes } => bytes;
    Self::Ack { .. }, Self::CloseStdin, Self::Resize { .. }, Self::Signal { .. }, Self::Commit,
);

payload!(Reply, version_1::Reply:
    Self::Output { stream: _, offset: _, bytes } => bytes, Self::Chunk { bytes } => bytes;
    Self::Done, Self::Refused(_), Self::Stats(_), Self::Started(_), Self::StdinTaken { .. }, Self::Exited(_),
    Self::Superseded, Self::Execs(_), Self::File(_), Self::Written { .. }, Self::Entries(_), Self::Paths(_),
    Self::Listed { .. }, Self::Connected, Self::Secrets(_), Self::ExitedOpen(_), Self::OutputClosed(_), Self::Found(_), Self::Searched(_),
);
