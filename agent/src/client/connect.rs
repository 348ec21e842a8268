use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fmt, io};

use backon::{ExponentialBuilder, Retryable as _};
use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::CallError;
use super::bounds::{Kind, PROMPT, Pace, Place, STALL, Shares, WORK, sane};
use super::connections::Share;
use crate::protocol::{
    Features, FrameError, FrameReader, FrameWriter, Hello, Input, Message, PROTOCOL_VERSION, Refusal, Reply,
    Request,
};

/// Any byte stream to an agent.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

pub type ConnectFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send + 'a>>;

/// A way to reach one agent: a unix socket here, vsock or a relay elsewhere.
///
/// # Obligations
///
/// - **The same agent.** Each stream leads to the agent that this is the way to, and to nobody who took its place; where that can be
///   told, another one is [`PermissionDenied`](io::ErrorKind::PermissionDenied).
/// - **No bounds of its own.** Whoever calls gives up in time and counts connections. A stream that is dropped is closed.
/// - **An error is worth another try**, as is a stream that ends before a word was said: of some ways the first connection after a pause
///   comes back empty.
pub trait Connect: Send + Sync + 'static {
    fn connect(&self) -> ConnectFuture<'_>;

    /// Where it leads, for the log: `unix:/path`, `vsock:3:5000`.
    fn place(&self) -> String;
}

/// The way to an agent, to be kept and passed on. What leads to the same place is the same.
#[derive(Clone)]
pub struct Connector(Arc<dyn Connect>);

impl<T: Connect> From<T> for Connector {
    fn from(connect: T) -> Self {
        Self(Arc::new(connect))
    }
}

impl Connector {
    /// Where it leads, for the log.
    pub fn place(&self) -> String {
        self.0.place()
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place())
    }
}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Connector {}

/// Who is expected behind a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Whoever listens.
    Anybody,
    /// This process, which is PID 1 of the sandbox, by its number here.
    Process(i32),
}

/// Reaches an agent over its unix socket.
pub struct UnixConnect {
    path: PathBuf,
    peer: Peer,
}

/// While an agent has more connections waiting than the kernel keeps for it, it is asked again after this long, and then ever
/// less often: thousands may be waiting, and the agent may be stopped for good.
const AGAIN: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(5))
    .with_max_delay(Duration::from_millis(320))
    .without_max_times();

impl UnixConnect {
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_path_buf(), peer: Peer::Anybody }
    }

    /// The same, where nobody but `peer` is spoken to.
    pub fn to(path: impl AsRef<Path>, peer: Peer) -> Self {
        Self { peer, ..Self::new(path) }
    }
}

impl Connect for UnixConnect {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async move {
            let stream = connect_unix(&self.path).await?;
            check(&stream, self.peer)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }

    fn place(&self) -> String {
        match self.peer {
            Peer::Anybody => format!("unix:{}", self.path.display()),
            Peer::Process(pid) => format!("unix:{}, process {pid}", self.path.display()),
        }
    }
}

/// The sandbox may be able to write to the socket's directory. It may have put a link there, to a socket of the host; that
/// is not followed, and what is connected to is what was opened. Paths may be longer than the 107 bytes of a socket address.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let socket = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let opened = Path::new("/proc/self/fd").join(socket.as_raw_fd().to_string());
    // Whoever calls gives up in time.
    let is_full = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    (|| UnixStream::connect(&opened)).retry(AGAIN).when(is_full).await
}

/// The pid of whoever listens on this socket; nothing for a process that cannot be seen from here.
pub async fn listener(path: &Path) -> io::Result<Option<i32>> {
    let stream = tokio::time::timeout(PROMPT, connect_unix(path)).await.map_err(io::Error::from)??;
    Ok(stream.peer_cred()?.pid().filter(|pid| *pid > 0))
}

/// Who listens is told by the kernel: it is whoever called `listen`. It shows pid 0 for a process that cannot be seen from
/// here, as from within a container of our own: then nothing can be told.
fn check(stream: &UnixStream, expected: Peer) -> io::Result<()> {
    let Peer::Process(expected) = expected else { return Ok(()) };
    match stream.peer_cred()?.pid() {
        None | Some(0) => Ok(()),
        Some(pid) if pid == expected => Ok(()),
        Some(pid) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("process {pid} listens in the place of the agent, which is process {expected}"),
        )),
    }
}

pub(super) type Reader = FrameReader<ReadHalf<Box<dyn Connection>>>;
pub(super) type Writer = FrameWriter<WriteHalf<Box<dyn Connection>>>;

/// One operation under way.
pub(super) struct Call {
    pub(super) operation: &'static str,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
    pub(super) place: Place,
    pace: Pace,
}

/// An agent as its callers know it.
pub(super) struct Acquaintance {
    connector: Connector,
    shares: Arc<Shares>,
    /// What it said of itself when it was met last.
    hello: Mutex<Option<Hello>>,
}

impl Acquaintance {
    pub(super) fn with(connector: Connector) -> Self {
        Self { connector, shares: Arc::default(), hello: Mutex::default() }
    }

    /// The same agent, where its connections are of those that its tenant may have on this node.
    pub(super) fn sharing(&self, node: Arc<Share>) -> Self {
        let shares = Arc::new(Shares::with(Some(node)));
        Self { connector: self.connector.clone(), shares, hello: Mutex::new(self.hello()) }
    }

    pub(super) fn hello(&self) -> Option<Hello> {
        *self.hello.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn met(&self, hello: Hello) {
        *self.hello.lock().unwrap_or_else(PoisonError::into_inner) = Some(hello);
    }
}

impl Call {
    /// Waits for a place, then connects and asks, within the time that this kind of operation has until its first reply.
    pub(super) async fn open<E>(
        agent: &Acquaintance,
        (operation, kind, limit): (&'static str, Kind, Duration),
        request: &Request,
    ) -> Result<Self, CallError<E>> {
        // An agent greets at once, also where its answer takes longer. One of version 1 may not greet whoever writes to a
        // process until the process has read.
        let greeting = if limit > WORK { limit } else { limit.min(PROMPT) };
        let place = agent.shares.place(operation, kind, greeting).await?;
        // The agent is not to blame for what was waited for before it was asked.
        let give_up_at = Instant::now() + limit;
        let opened = Self::introduce(agent, operation, place, request);
        let mut call = tokio::time::timeout(greeting, opened)
            .await
            .map_err(|_| CallError::Silent { operation, after: greeting })??;
        call.pace = Pace::until(give_up_at);
        Ok(call)
    }

    /// Connects as somebody whom the agent can understand. An agent of version 1 that was not known as one says so and closes:
    /// then it is asked once more, in its own way.
    async fn introduce<E>(
        agent: &Acquaintance,
        operation: &'static str,
        place: Place,
        request: &Request,
    ) -> Result<Self, CallError<E>> {
        match Self::meet(agent, operation, place, request).await? {
            Met::Asked(call) => Ok(call),
            Met::OfVersion1(place) => match Self::meet(agent, operation, place, request).await? {
                Met::Asked(call) => Ok(call),
                Met::OfVersion1(_) => Err(CallError::Violation {
                    operation,
                    detail: "it is now of one version and now of another".to_owned(),
                }),
            },
        }
    }

    async fn meet<E>(
        agent: &Acquaintance,
        operation: &'static str,
        place: Place,
        request: &Request,
    ) -> Result<Met, CallError<E>> {
        let known = agent.hello();
        if let Some(known) = known {
            can(operation, &known, request)?;
        }
        // Known or not, it is met on what both can speak.
        let common = known.map(|hello| Hello::ours().versions.common(hello.versions));
        let version = common.flatten().unwrap_or(PROTOCOL_VERSION);
        let stream =
            agent.connector.0.connect().await.map_err(|source| CallError::Transport { operation, source })?;
        let (read, write) = tokio::io::split(stream);
        let reader = FrameReader::with_budget(read, Arc::clone(&agent.shares.frames));
        let pace = Pace::default();
        let mut call = Self { operation, reader, writer: FrameWriter::new(write), place, pace };
        let sent = call.greet(version, known.map(|_| request)).await;
        if let Err(error @ (FrameError::TooLarge(_) | FrameError::Malformed(_))) = sent {
            return Err(CallError::from_frame(operation, error));
        }
        // A failed write may mean that the agent closed after a word that is still to be read.
        let hello = match Hello::receive(&mut call.reader).await {
            Ok(Some(hello)) => hello,
            Ok(None) => return Err(call.closed()),
            Err(error) => return Err(CallError::from_frame(operation, error)),
        };
        let Some(agreed) = Hello::speaking(version).versions.common(hello.versions) else {
            return Err(CallError::Version { theirs: hello.versions });
        };
        agent.met(hello);
        if agreed != version && hello.is_of_version_1() {
            return Ok(Met::OfVersion1(call.place));
        }
        sent.map_err(|error| CallError::from_frame(operation, error))?;
        call.reader.speak(agreed);
        call.writer.speak(agreed);
        if known.is_none() {
            can(operation, &hello, request)?;
            let sent = call.request(request).await;
            sent.map_err(|error| CallError::from_frame(operation, error))?;
        } else if agreed != version {
            return Err(call.violation("it no longer speaks the version that it spoke"));
        }
        Ok(Met::Asked(call))
    }

    /// Says who calls, and what for where the agent is known.
    async fn greet(&mut self, version: u32, request: Option<&Request>) -> Result<(), FrameError> {
        Hello::speaking(version).send(version, &mut self.writer).await?;
        self.writer.speak(version);
        match request {
            Some(request) => self.request(request).await,
            None => self.writer.flush().await,
        }
    }

    async fn request(&mut self, request: &Request) -> Result<(), FrameError> {
        self.writer.send(request).await?;
        self.writer.flush().await
    }

    /// The next reply; a refusal is an error. Whoever lets us wait for longer than it may, or sends so slowly that it comes
    /// to the same, is given up.
    pub(super) async fn reply<E: TryFrom<Refusal>>(&mut self) -> Result<Reply, CallError<E>> {
        let Self { operation, reader, pace, .. } = self;
        let received = pace.keep(reply(operation, reader)).await;
        let reply = received.map_err(|after| CallError::Silent { operation, after })??;
        self.pace.earn(reply.payload().map_or(0, bytes::Bytes::len));
        Ok(reply)
    }

    /// Sends one message more. Not cancel safe, and after an error the call is over.
    pub(super) async fn send(&mut self, input: &Input) -> Result<(), SendError> {
        bounded(async {
            self.writer.send(input).await?;
            self.writer.flush().await
        })
        .await
    }

    /// From now on the agent has this long for its next reply.
    pub(super) fn allow(&mut self, limit: Duration) {
        self.pace = Pace::until(Instant::now() + limit);
    }

    pub(super) async fn done<E: TryFrom<Refusal>>(mut self) -> Result<(), CallError<E>> {
        match self.reply().await? {
            Reply::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    pub(super) fn unexpected<E>(&self, reply: &Reply) -> CallError<E> {
        unexpected(self.operation, reply)
    }

    pub(super) fn violation<E>(&self, detail: impl Into<String>) -> CallError<E> {
        CallError::Violation { operation: self.operation, detail: detail.into() }
    }

    fn closed<E>(&self) -> CallError<E> {
        closed(self.operation)
    }
}

/// How a connection to an agent began.
enum Met {
    Asked(Call),
    /// It is of version 1, which was not known, and closed.
    OfVersion1(Place),
}

/// Whether an agent that says this of itself can do what it is to be asked.
fn can<E>(operation: &'static str, hello: &Hello, request: &Request) -> Result<(), CallError<E>> {
    let missing = request.needs().without(hello.features);
    if missing == Features::NONE {
        return Ok(());
    }
    Err(CallError::Unsupported { operation, missing })
}

/// Why something more was not sent.
pub(super) enum SendError {
    Frame(FrameError),
    /// The agent does not take it.
    Silent(Duration),
}

/// Sends within the time in which an agent has to read.
pub(super) async fn bounded(send: impl Future<Output = Result<(), FrameError>>) -> Result<(), SendError> {
    match tokio::time::timeout(STALL, send).await {
        Ok(sent) => sent.map_err(SendError::Frame),
        Err(_) => Err(SendError::Silent(STALL)),
    }
}

pub(super) async fn reply<E: TryFrom<Refusal>>(
    operation: &'static str,
    reader: &mut Reader,
) -> Result<Reply, CallError<E>> {
    match reader.receive::<Reply>().await {
        Ok(Some(Reply::Refused(refusal))) => Err(refused(operation, sane(refusal))),
        Ok(Some(reply)) => Ok(reply),
        Ok(None) => Err(closed(operation)),
        Err(error) => Err(CallError::from_frame(operation, error)),
    }
}

fn refused<E: TryFrom<Refusal>>(operation: &'static str, refusal: Refusal) -> CallError<E> {
    let detail = format!("refusal out of place: {refusal:?}");
    match E::try_from(refusal) {
        Ok(refusal) => CallError::Refused(refusal),
        Err(_) => CallError::Violation { operation, detail },
    }
}

fn closed<E>(operation: &'static str) -> CallError<E> {
    CallError::Transport { operation, source: io::ErrorKind::UnexpectedEof.into() }
}

/// Names the kind of reply only: its contents may be large.
pub(super) fn unexpected<E>(operation: &'static str, reply: &Reply) -> CallError<E> {
    let kind = match reply {
        Reply::Done => "Done",
        Reply::Refused(_) => "Refused",
        Reply::Stats(_) => "Stats",
        Reply::Started(_) => "Started",
        Reply::Output { .. } => "Output",
        Reply::StdinTaken { .. } => "StdinTaken",
        Reply::Exited(_) => "Exited",
        Reply::Superseded => "Superseded",
        Reply::Execs(_) => "Execs",
        Reply::File(_) => "File",
        Reply::Chunk { .. } => "Chunk",
        Reply::Written { .. } => "Written",
        Reply::Entries(_) => "Entries",
        Reply::Paths(_) => "Paths",
        Reply::Listed { .. } => "Listed",
        Reply::Connected => "Connected",
        Reply::Secrets(_) => "Secrets",
        Reply::ExitedOpen(_) => "ExitedOpen",
        Reply::OutputClosed(_) => "OutputClosed",
        Reply::Found(_) => "Found",
        Reply::Searched(_) => "Searched",
    };
    CallError::Violation { operation, detail: format!("{kind} out of place") }
}
