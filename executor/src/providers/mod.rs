//! The box-makers.

pub mod bubblewrap;
pub mod docker;

mod arrival;
mod image;
mod inside;
mod privileges;
mod run_dir;
mod seccomp;
