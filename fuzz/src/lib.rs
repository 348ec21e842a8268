//! What is fed with bytes that nobody chose: every place where a sandbox, a client, a peer or a file speaks to us. A target is a
//! function of bytes that panics where a promise is broken; `targets/` makes a fuzzer of each, `tests/corpus.rs` runs what the
//! fuzzers have found. See README.md.

#![allow(clippy::panic, reason = "a panic is what a fuzz target says no with")]

mod agent_calls;
mod agent_frames;
mod audit_files;
mod durations;
mod event_frames;
mod link_frames;
mod name_queries;
mod ndjson;
mod request_bodies;
mod request_values;
mod socket_frames;
mod subjects;
mod terminal;

pub use agent_calls::agent_calls;
pub use agent_frames::agent_frames;
pub use audit_files::audit_files;
pub use durations::durations;
pub use event_frames::event_frames;
pub use link_frames::link_frames;
pub use name_queries::name_queries;
pub use ndjson::ndjson;
pub use request_bodies::request_bodies;
pub use request_values::request_values;
pub use socket_frames::socket_frames;
pub use subjects::subjects;
pub use terminal::terminal;

/// What is fed with bytes.
pub type Target = fn(&[u8]);

/// The targets by their names, for the test of the corpora.
pub const TARGETS: [(&str, Target); 13] = [
    ("agent_calls", agent_calls),
    ("agent_frames", agent_frames),
    ("audit_files", audit_files),
    ("durations", durations),
    ("event_frames", event_frames),
    ("link_frames", link_frames),
    ("name_queries", name_queries),
    ("ndjson", ndjson),
    ("request_bodies", request_bodies),
    ("request_values", request_values),
    ("socket_frames", socket_frames),
    ("subjects", subjects),
    ("terminal", terminal),
];

/// What was read and written is the same when it is read and written again.
fn stable(bytes: &[u8], again: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let Some(once) = again(bytes) else { return };
    let Some(twice) = again(&once) else { panic!("what was written cannot be read") };
    assert_eq!(once, twice, "it changed on its way");
}
