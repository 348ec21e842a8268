use bytes::Bytes;
use events::{DecodeError, StreamMark, decode_batch};
use transport::{SourceMessage, StreamPlace};

use super::numberer::Incoming;

/// A batch of this many events or bytes is drafted while the one before it is being appended.
const EARLY_EVENTS: usize = 128;
const EARLY_BYTES: usize = 256 << 10;

/// What has been gathered for one batch.
#[derive(Default)]
pub(super) struct Gathered {
    pub events: Vec<Incoming>,
    pub bytes: usize,
    pub mark: StreamMark,
    /// The newest message of the stream, and when the oldest was published.
    pub newest: Option<StreamPlace>,
    pub oldest_us: Option<i64>,
    /// Messages that hold something unreadable.
    pub unreadable: Vec<Bytes>,
    /// Where somebody waits to hear that these are recorded.
    pub probes: Vec<String>,
    /// How many messages there are, and the message when there is only one, and it is of the stream.
    pub messages: usize,
    pub only: Option<Bytes>,
}

impl Gathered {
    /// Whether it is time to draft it: at once when nothing is being appended. Otherwise what comes until then is one write more
    /// cheaply; but a large batch is drafted beside it.
    pub fn is_due(&self, appending: bool) -> bool {
        self.messages > 0 && (!appending || self.events.len() >= EARLY_EVENTS || self.bytes >= EARLY_BYTES)
    }

    pub fn add(&mut self, message: SourceMessage) {
        let SourceMessage { place, payload, probe, node } = message;
        self.probes.extend(probe);
        self.messages += 1;
        self.only = (self.messages == 1 && place.is_some()).then(|| payload.clone());
        if let Some(place) = place {
            self.mark.sequence = place.sequence;
            self.newest = Some(place);
            self.oldest_us.get_or_insert(place.published_us);
        }
        self.bytes += payload.len();
        let offered = place.is_none();
        let frames = match decode_batch(payload.clone(), false) {
            Ok(frames) => frames,
            Err(error) => {
                self.unreadable(place, &payload, &error);
                return;
            }
        };
        for frame in frames {
            match Incoming::decode(frame) {
                Ok(incoming) => self.events.push(Incoming { node: node.clone(), offered, ..incoming }),
                Err(error) => self.unreadable(place, &payload, &error),
            }
        }
    }

    /// What is only offered is put aside when it comes through the stream.
    fn unreadable(&mut self, place: Option<StreamPlace>, payload: &Bytes, error: &DecodeError) {
        let Some(place) = place else { return };
        tracing::error!(error = %error, stream.sequence = place.sequence, "a message cannot be read: put aside");
        // Once, however much of it cannot be read.
        if self.unreadable.last() != Some(payload) {
            self.unreadable.push(payload.clone());
        }
    }
}
