//! From an agent's connection to events in the log.

mod masking;
mod merge;
mod outbox;
mod pump;

pub use pump::{Exec, Resume, SIGTERM};
