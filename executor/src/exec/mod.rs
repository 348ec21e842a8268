//! From an agent's connection to events in the log.

mod found;
mod masking;
mod merge;
mod outbox;
mod pump;
#[cfg(test)]
mod pump_tests;
#[cfg(test)]
mod simulated;
mod way;

pub use found::{Found, find_again};
pub use pump::{Exec, Resume, SIGTERM};
