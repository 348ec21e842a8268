use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{MAX_FRAME, Message, PROTOCOL_VERSION};

/// Raw bytes up to this many are copied beside their header, so that small messages share a write.
const INLINE: usize = 8 * 1024;
/// Small messages are gathered up to this many bytes before a write is forced.
const GATHER: usize = 32 * 1024;
/// Bytes of a frame before its message: its length.
const PREFIX: usize = 4;
/// Room for what comes next, while its length is unknown.
const READ_AHEAD: usize = 4096;
/// Frames up to this many bytes are not counted against a budget.
const UNCOUNTED: usize = 16 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The connection failed; another one may work.
    #[error("connection failed")]
    Io(#[from] io::Error),
    /// A frame longer than [`MAX_FRAME`] was about to be sent.
    #[error("message of {0} bytes does not fit a frame")]
    TooLarge(usize),
    /// What arrived is not a message of the expected kind.
    #[error("malformed frame: {0}")]
    Malformed(&'static str),
}

/// Reads a message of the newest version, with the raw bytes (if its kind has any) shared with the frame, not copied.
pub fn decode<M: Message>(frame: &Bytes) -> Result<M, FrameError> {
    decode_as(PROTOCOL_VERSION, frame)
}

/// Reads a message in its form of this version.
pub fn decode_as<M: Message>(version: u32, frame: &Bytes) -> Result<M, FrameError> {
    let (mut message, rest) = M::read(version, frame)?;
    match message.payload_mut() {
        Some(payload) => *payload = frame.slice_ref(rest),
        None if rest.is_empty() => {}
        None => return Err(FrameError::Malformed("trailing bytes")),
    }
    Ok(message)
}

/// Appends the whole frame of a message of the newest version to a buffer.
pub fn encode<M: Message>(message: &M, buffer: &mut BytesMut) -> Result<(), FrameError> {
    encode_as(PROTOCOL_VERSION, message, buffer)
}

/// Appends the whole frame of a message in its form of this version.
pub fn encode_as<M: Message>(version: u32, message: &M, buffer: &mut BytesMut) -> Result<(), FrameError> {
    encode_header(version, message, buffer)?;
    if let Some(payload) = message.payload() {
        buffer.extend_from_slice(payload);
    }
    Ok(())
}

/// Everything but the raw bytes, whose length is already counted in.
fn encode_header<M: Message>(version: u32, message: &M, buffer: &mut BytesMut) -> Result<(), FrameError> {
    let start = buffer.len();
    buffer.put_u32(0);
    if let Err(error) = message.write(version, (&mut *buffer).writer()) {
        buffer.truncate(start);
        return Err(error);
    }
    let body = buffer.len() - start - 4;
    let length = body + message.payload().map_or(0, Bytes::len);
    let Some(prefix) = u32::try_from(length).ok().filter(|_| length <= MAX_FRAME) else {
        buffer.truncate(start);
        return Err(FrameError::TooLarge(length));
    };
    buffer[start..start + 4].copy_from_slice(&prefix.to_be_bytes());
    Ok(())
}

/// Receiving side of a connection.
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    /// Longest frame, in bytes.
    most: usize,
    /// In which version of the protocol messages come.
    version: u32,
    budget: Option<Budget>,
}

/// What frames that have come in half may take, over all connections that share it.
struct Budget {
    bytes: Arc<Semaphore>,
    /// For the frame that is coming in.
    held: Option<OwnedSemaphorePermit>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: BytesMut::with_capacity(READ_AHEAD),
            most: MAX_FRAME,
            version: PROTOCOL_VERSION,
            budget: None,
        }
    }

    /// The same for a peer that is not trusted. Long frames that have come in half take no more than `bytes` together, one
    /// permit a byte and at least [`MAX_FRAME`]: the next one waits.
    pub fn with_budget(stream: R, bytes: Arc<Semaphore>) -> Self {
        Self { budget: Some(Budget { bytes, held: None }), ..Self::new(stream) }
    }

    /// From here on messages have the form of this version.
    pub fn speak(&mut self, version: u32) {
        self.version = version;
    }

    /// Takes no frame that is longer than this, in bytes.
    pub fn limit(&mut self, most: usize) {
        self.most = most.min(MAX_FRAME);
    }

    /// The next message, or `None` when the peer closed between two. Cancel safe.
    pub async fn receive<M: Message>(&mut self) -> Result<Option<M>, FrameError> {
        loop {
            let ahead = match self.length()? {
                Some(length) if self.buffer.len() >= PREFIX + length => {
                    self.buffer.advance(PREFIX);
                    let frame = self.buffer.split_to(length).freeze();
                    if let Some(budget) = &mut self.budget {
                        budget.held = None;
                    }
                    return decode_as(self.version, &frame).map(Some);
                }
                Some(length) => {
                    self.afford(length).await;
                    PREFIX + length - self.buffer.len()
                }
                None => READ_AHEAD,
            };
            self.buffer.reserve(ahead);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(FrameError::Io(io::ErrorKind::UnexpectedEof.into()))
                };
            }
        }
    }

    /// Whether the next message has come already, whole.
    pub fn has_next(&self) -> bool {
        matches!(self.length(), Ok(Some(length)) if self.buffer.len() >= PREFIX + length)
    }

    /// How long the next frame is, once that is known.
    fn length(&self) -> Result<Option<usize>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else { return Ok(None) };
        match usize::try_from(u32::from_be_bytes(*prefix)) {
            Ok(length) if length <= self.most => Ok(Some(length)),
            Ok(_) | Err(_) => Err(FrameError::Malformed("frame too long")),
        }
    }

    async fn afford(&mut self, length: usize) {
        if let Some(budget) =
            self.budget.as_mut().filter(|budget| length > UNCOUNTED && budget.held.is_none())
        {
            let bytes = u32::try_from(length).unwrap_or(u32::MAX);
            // Nobody closes it.
            budget.held = Arc::clone(&budget.bytes).acquire_many_owned(bytes).await.ok();
        }
    }

    /// Gives back the stream and what was read from it beyond the last message.
    pub fn into_parts(self) -> (R, Bytes) {
        (self.stream, self.buffer.freeze())
    }
}

/// Sending side of a connection. Small messages wait for [`flush`](Self::flush).
pub struct FrameWriter<W> {
    stream: W,
    buffer: BytesMut,
    /// In which version of the protocol messages go.
    version: u32,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub fn new(stream: W) -> Self {
        Self { stream, buffer: BytesMut::new(), version: PROTOCOL_VERSION }
    }

    /// From here on messages have the form of this version.
    pub fn speak(&mut self, version: u32) {
        self.version = version;
    }

    /// Not cancel safe: a send that is dropped half way leaves the connection unusable.
    pub async fn send<M: Message>(&mut self, message: &M) -> Result<(), FrameError> {
        encode_header(self.version, message, &mut self.buffer)?;
        if let Some(payload) = message.payload() {
            if payload.len() > INLINE {
                self.write_with(payload.clone()).await?;
            } else {
                self.buffer.extend_from_slice(payload);
            }
        }
        if self.buffer.len() > GATHER {
            self.write_with(Bytes::new()).await?;
        }
        Ok(())
    }

    pub async fn flush(&mut self) -> Result<(), FrameError> {
        self.write_with(Bytes::new()).await?;
        Ok(self.stream.flush().await?)
    }

    pub fn into_inner(self) -> W {
        self.stream
    }

    /// Closes the sending direction.
    pub async fn shutdown(&mut self) -> Result<(), FrameError> {
        self.flush().await?;
        Ok(self.stream.shutdown().await?)
    }

    /// Writes what is buffered and then `payload`, without copying the latter.
    async fn write_with(&mut self, payload: Bytes) -> io::Result<()> {
        let head = self.buffer.len();
        let mut written = 0;
        while written < head {
            let slices = [IoSlice::new(&self.buffer[written..]), IoSlice::new(&payload)];
            let count = self.stream.write_vectored(&slices).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            written += count;
        }
        self.buffer.clear();
        self.stream.write_all(&payload[written - head..]).await
    }
}
