//! The small program that runs as PID 1 in every sandbox, and what its callers need to speak to it.
//!
//! [`protocol`] holds the messages and their framing, [`client`] the caller's side, [`patterns`] which files are meant. The program
//! itself is the binary `stacyvm-agent`.

pub mod client;
pub mod patterns;
pub mod protocol;

/// What the program can be asked on its command line and in messages. Raised by one with every option and every message that is new, so
/// that an executor finds out at its start that the program on its disk is not the one that it was built with. Agents of sandboxes that
/// run already are not held to it: see [`protocol::PROTOCOL_VERSION`] for those.
pub const EDITION: u32 = 4;

/// What `stacyvm-agent --version` prints, without the end of the line.
pub fn version() -> String {
    format!("stacyvm-agent {} (edition {EDITION})", env!("CARGO_PKG_VERSION"))
}
