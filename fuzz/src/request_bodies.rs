//! Bodies of requests: what to spawn, to run, to save, to call.

/// The first byte says which route it is, the rest is the body.
pub fn request_bodies(input: &[u8]) {
    let Some((kind, body)) = input.split_first() else { return };
    let good = api_gateway::fuzzing::body(*kind, body);
    assert!(!good || body.trim_ascii().starts_with(b"{"), "a body that is no object");
}
