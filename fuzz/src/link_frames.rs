//! What gateways, executors and recorders say to each other over NATS.

use transport::fuzzing;

use super::stable;

/// The first byte says what is expected, the rest is what comes.
pub fn link_frames(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    match kind % 5 {
        0 => stable(bytes, |bytes| fuzzing::link_frame(bytes).map(Vec::from)),
        1 => stable(bytes, fuzzing::link_request),
        2 => stable(bytes, fuzzing::file_entry),
        3 => stable(bytes, fuzzing::command),
        _ => assert!(fuzzing::news(bytes) <= 5),
    }
}
