//! The box-makers.

pub mod bubblewrap;
pub mod docker;

mod arrival;
mod inside;
mod seccomp;
