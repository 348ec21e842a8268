//! Probes. They need no key.

pub mod check;
pub mod live;
pub mod ready;
