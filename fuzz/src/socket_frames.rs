//! What clients send over WebSockets: the frames of all framings, the first ones and the controls.

/// The first byte says which socket it is, the rest is the frame.
pub fn socket_frames(input: &[u8]) {
    let Some((kind, frame)) = input.split_first() else { return };
    let good = api_gateway::fuzzing::socket_frame(*kind, frame);
    assert!(!good || !frame.is_empty(), "nothing is no frame");
}
