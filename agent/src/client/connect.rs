use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use rustix::fs::{Mode, OFlags};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::net::UnixStream;

use super::CallError;
use crate::protocol::{FrameError, FrameReader, FrameWriter, Hello, Refusal, Reply, Request};

/// Any byte stream to an agent.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

pub type ConnectFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Box<dyn Connection>>> + Send + 'a>>;

/// A way to reach one agent.
pub trait Connect: Send + Sync + 'static {
    fn connect(&self) -> ConnectFuture<'_>;
}

/// Reaches an agent over its unix socket.
pub struct UnixConnect {
    path: PathBuf,
}

impl UnixConnect {
    pub fn new(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_path_buf() }
    }
}

impl Connect for UnixConnect {
    fn connect(&self) -> ConnectFuture<'_> {
        Box::pin(async move {
            let stream = connect_unix(&self.path).await?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }
}

/// The sandbox can write to the socket's directory. It may have put a link there, to a socket of the host; that is not
/// followed, and what is connected to is what was opened. Paths may be longer than the 107 bytes of a socket address.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    let socket = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(Path::new("/proc/self/fd").join(socket.as_raw_fd().to_string())).await
}

pub(super) type Reader = FrameReader<ReadHalf<Box<dyn Connection>>>;
pub(super) type Writer = FrameWriter<WriteHalf<Box<dyn Connection>>>;

/// One operation under way.
pub(super) struct Call {
    pub(super) operation: &'static str,
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

impl Call {
    pub(super) async fn open<E>(
        connect: &dyn Connect,
        operation: &'static str,
        request: &Request,
    ) -> Result<Self, CallError<E>> {
        let stream = connect.connect().await.map_err(|source| CallError::Transport { operation, source })?;
        let (read, write) = tokio::io::split(stream);
        let mut call = Self { operation, reader: FrameReader::new(read), writer: FrameWriter::new(write) };
        let sent = call.send_request(request).await;
        if let Err(error @ (FrameError::TooLarge(_) | FrameError::Malformed(_))) = sent {
            return Err(CallError::from_frame(operation, error));
        }
        // A failed write may mean that the agent closed after a word that is still to be read.
        let hello = match call.reader.receive::<Hello>().await {
            Ok(Some(hello)) => hello,
            Ok(None) => return Err(call.closed()),
            Err(error) => return Err(CallError::from_frame(operation, error)),
        };
        if !hello.is_agent_protocol() {
            return Err(CallError::Violation { operation, detail: "not an agent".to_owned() });
        }
        if hello.version != crate::protocol::PROTOCOL_VERSION {
            return Err(CallError::Version { theirs: hello.version });
        }
        sent.map_err(|error| CallError::from_frame(operation, error))?;
        Ok(call)
    }

    async fn send_request(&mut self, request: &Request) -> Result<(), FrameError> {
        self.writer.send(&Hello::ours()).await?;
        self.writer.send(request).await?;
        self.writer.flush().await
    }

    /// The next reply; a refusal is an error.
    pub(super) async fn reply<E: TryFrom<Refusal>>(&mut self) -> Result<Reply, CallError<E>> {
        reply(self.operation, &mut self.reader).await
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

    fn closed<E>(&self) -> CallError<E> {
        closed(self.operation)
    }
}

pub(super) async fn reply<E: TryFrom<Refusal>>(
    operation: &'static str,
    reader: &mut Reader,
) -> Result<Reply, CallError<E>> {
    match reader.receive::<Reply>().await {
        Ok(Some(Reply::Refused(refusal))) => Err(refused(operation, refusal)),
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
    };
    CallError::Violation { operation, detail: format!("{kind} out of place") }
}
