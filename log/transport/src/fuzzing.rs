//! Doors for the fuzz targets: what reads the bytes of other processes here and is not public otherwise. No service uses it.

use bytes::Bytes;
use events::{CommandEnvelope, StreamMark};

use crate::link::{FileEntry, LinkFrame, LinkRequest};

/// A message of a link, read and written again; `None` for what is none.
pub fn link_frame(bytes: &[u8]) -> Option<Bytes> {
    LinkFrame::decode(Bytes::copy_from_slice(bytes)).map(|frame| frame.encode())
}

/// A request over a link, read and written again.
pub fn link_request(bytes: &[u8]) -> Option<Vec<u8>> {
    let request: LinkRequest = serde_json::from_slice(bytes).ok()?;
    serde_json::to_vec(&request).ok()
}

/// A line of a listing, read and written again.
pub fn file_entry(bytes: &[u8]) -> Option<Vec<u8>> {
    let entry: FileEntry = serde_json::from_slice(bytes).ok()?;
    serde_json::to_vec(&entry).ok()
}

/// A command, read and written again.
pub fn command(bytes: &[u8]) -> Option<Vec<u8>> {
    let command: CommandEnvelope = serde_json::from_slice(bytes).ok()?;
    serde_json::to_vec(&command).ok()
}

/// What recorders and nodes say of themselves: progress, marks, signs of life, answers to probes and to questions. How many of
/// these kinds the bytes were.
pub fn news(bytes: &[u8]) -> usize {
    let progress = crate::log::read_progress(Bytes::copy_from_slice(bytes));
    let mark: Option<StreamMark> = crate::log::read_mark(bytes);
    let beat: Option<crate::Heartbeat> = serde_json::from_slice(bytes).ok();
    let kinds = [
        !progress.is_empty(),
        mark.is_some(),
        beat.is_some(),
        crate::log::read_answer(bytes),
        crate::query::reads(bytes),
    ];
    kinds.into_iter().filter(|is| *is).count()
}
