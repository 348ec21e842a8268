//! Probes. They need no key.

pub mod check;
pub mod live;
mod readiness;
pub mod ready;

use api_types::Build;

/// The version of this server.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// This program.
pub fn build() -> Build {
    Build { version: VERSION.into(), os: std::env::consts::OS.into(), arch: std::env::consts::ARCH.into() }
}
