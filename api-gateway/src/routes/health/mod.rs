//! Probes. They need no key.

pub mod health;
pub mod live;
pub mod ready;
