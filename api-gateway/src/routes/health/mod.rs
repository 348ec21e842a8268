//! Probes. They need no key.

pub mod check;
pub mod live;
mod readiness;
pub mod ready;

use serde::Serialize;
use utoipa::ToSchema;

pub use readiness::Readiness;

/// What runs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Build {
    /// Of the server.
    pub version: &'static str,
    /// The operating system.
    pub os: &'static str,
    /// The machine.
    pub arch: &'static str,
}

impl Build {
    /// This program.
    pub const fn this() -> Self {
        Self { version: env!("CARGO_PKG_VERSION"), os: std::env::consts::OS, arch: std::env::consts::ARCH }
    }
}
