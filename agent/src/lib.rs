//! The small program that runs as PID 1 in every sandbox, and what its callers need to speak to it.
//!
//! [`protocol`] holds the messages and their framing, [`client`] the caller's side. The program
//! itself is the binary `stacyvm-agent`.

pub mod client;
pub mod protocol;
