use async_trait::async_trait;
use bytes::Bytes;
use events::{ExecId, OutputStream, Position};

use crate::StoreError;

/// A piece of the output of an exec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// Where its first byte stands in the stream.
    pub offset: u64,
    /// The bytes. Never empty.
    pub bytes: Bytes,
    /// The event that it is from.
    pub position: Position,
}

/// The bytes that execs wrote.
#[async_trait]
pub trait OutputBytes: std::fmt::Debug + Send + Sync + 'static {
    /// The first event that holds a byte at or after one of the two offsets; `None` while there is none.
    async fn start(
        &self,
        exec: ExecId,
        stdout_offset: u64,
        stderr_offset: u64,
    ) -> Result<Option<Position>, StoreError>;

    /// Output from `offset` on, in order and without holes: up to `max_bytes` bytes, or fewer when it is in many small
    /// pieces. Empty only when nothing is recorded at or after `offset`. The first and the last chunk are cut to fit.
    /// [`StoreError::Gone`] when the byte at `offset` was recorded and is not there any more.
    async fn read(
        &self,
        exec: ExecId,
        stream: OutputStream,
        offset: u64,
        max_bytes: usize,
    ) -> Result<Vec<OutputChunk>, StoreError>;
}
