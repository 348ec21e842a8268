use std::io;

use bytes::Bytes;

use crate::{AppendBody, BodyStream, Encoding, Event, EventData, Frame, StoredBody};

/// Fewer bytes are not worth compressing.
const MIN_COMPRESSED: usize = 256;
/// What is mostly noise is found out by looking at so many bytes of it.
const SAMPLE: usize = 4 << 10;
/// The quickest level: the recorder is the one place that all output goes through.
const LEVEL: i32 = 1;

/// Why a body could not be brought into the form in which it is kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode a body")]
pub struct EncodeError(#[from] io::Error);

/// Brings bodies into the form in which they are kept. It is shown every event that is recorded, in order.
pub trait Encode {
    /// The body of a numbered event, if it has one.
    fn encode(&mut self, event: &Event, frame: &Frame) -> Result<Option<AppendBody>, EncodeError>;
}

/// Compresses what becomes smaller by it.
pub struct Encoder {
    compressor: zstd::bulk::Compressor<'static>,
}

impl Encoder {
    /// An encoder.
    pub fn new() -> Result<Self, EncodeError> {
        Ok(Self { compressor: zstd::bulk::Compressor::new(LEVEL)? })
    }

    fn compress(&mut self, body: &Bytes) -> Result<StoredBody, EncodeError> {
        let raw = || StoredBody { encoding: Encoding::Raw, bytes: body.clone() };
        if body.len() < MIN_COMPRESSED {
            return Ok(raw());
        }
        if body.len() > 2 * SAMPLE && !pays(SAMPLE, self.compressor.compress(&body[..SAMPLE])?.len()) {
            return Ok(raw());
        }
        let compressed = self.compressor.compress(body)?;
        if !pays(body.len(), compressed.len()) {
            return Ok(raw());
        }
        Ok(StoredBody { encoding: Encoding::Zstd, bytes: compressed.into() })
    }
}

/// Whether at least an eighth is saved.
const fn pays(before: usize, after: usize) -> bool {
    after <= before - before / 8
}

impl Encode for Encoder {
    fn encode(&mut self, event: &Event, frame: &Frame) -> Result<Option<AppendBody>, EncodeError> {
        let Some(stream) = body_stream(&event.data) else {
            return Ok(None);
        };
        let stored = self.compress(&frame.body)?;
        Ok(Some(AppendBody { stream, hash: stored.hash(), stored: Some(stored) }))
    }
}

/// Where the body of an event belongs, if it has one.
fn body_stream(data: &EventData) -> Option<BodyStream> {
    if let EventData::ExecOutput(output) = data {
        Some(match output.stream {
            crate::OutputStream::Stdout => BodyStream::Stdout(output.offset),
            crate::OutputStream::Stderr => BodyStream::Stderr(output.offset),
        })
    } else if let EventData::ExecInput(_) = data {
        Some(BodyStream::Stdin)
    } else {
        None
    }
}
