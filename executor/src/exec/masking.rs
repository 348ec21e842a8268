//! Output on its way to the log, masked; untouched where nothing is masked.

use agent::protocol::Stream;
use bytes::Bytes;
use events::{Redaction, RedactionStream};

use super::pump::Offsets;

pub struct Masking {
    streams: Option<[RedactionStream; 2]>,
    lookbehind: u64,
}

impl Masking {
    /// The next byte of each stream stands at `read`; what is before `told` is only looked at.
    pub fn new(redaction: &Redaction, read: Offsets, told: Offsets) -> Self {
        let stream = |index: usize| RedactionStream::new(redaction, read[index], told[index]);
        let streams = (!redaction.is_empty()).then(|| [stream(0), stream(1)]);
        Self { streams, lookbehind: redaction.lookbehind() as u64 }
    }

    /// Takes bytes and gives those that may be told.
    pub fn push(&mut self, stream: Stream, bytes: Bytes) -> Bytes {
        match &mut self.streams {
            Some(streams) => streams[stream.index()].push(&bytes),
            None => bytes,
        }
    }

    /// Gives what was held back.
    pub fn flush(&mut self, stream: Stream) -> Bytes {
        self.streams.as_mut().map_or_else(Bytes::new, |streams| streams[stream.index()].flush())
    }

    pub fn held(&self, stream: Stream) -> u64 {
        self.streams.as_ref().map_or(0, |streams| streams[stream.index()].held())
    }

    pub fn holds(&self) -> bool {
        Stream::BOTH.into_iter().any(|stream| self.held(stream) > 0)
    }

    /// How much before a place must be seen again to go on there.
    pub const fn lookbehind(&self) -> u64 {
        self.lookbehind
    }
}
