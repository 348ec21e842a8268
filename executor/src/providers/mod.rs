//! The box-makers.

pub mod docker;

mod arrival;
mod inside;
mod seccomp;
