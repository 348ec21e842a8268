//! The box-makers.

pub mod bubblewrap;
pub mod docker;
pub mod registry;

mod arrival;
mod host;
mod image;
mod inside;
mod privileges;
mod remover;
mod run_dir;
mod seccomp;
mod trash;
mod ulimits;
