//! WebSockets. Every route that has one talks through [`Socket::converse`] and says only what it sends ([`Speaker`]) and
//! how it takes what comes ([`Listener`]); the rest is here, once:
//!
//! - One frame is in the buffer of a connection at a time, so what a slow client costs is bounded. One that takes nothing
//!   for too long is closed with 1013 and told where to go on from; what it has not been sent yet is in the record.
//! - A client is asked whether it lives, and given up when it does not say so.
//! - Whoever breaks the protocol is told how (1002, 1007, 1009).
//! - Every connection ends with a close of both sides before its TCP connection does, as far as the client takes part.

mod closing;
mod conversation;
mod upgrade;

#[cfg(test)]
mod tests;

pub use conversation::{First, Listener, Silent, Socket, Speaker, Terms, Word};
pub use upgrade::Upgrade;

/// The subprotocol that every WebSocket here takes. A client that offers a ticket offers this beside it, because a browser
/// wants one of its offers to be taken, and a ticket is never said back.
pub const PROTOCOL: &str = "stacyvm.v1";

/// The most that waits to be sent, in bytes: the largest frame of ours, and the close behind it. It is not set aside.
const BUFFER_BYTES: usize = 16 << 20;
/// How much is read at once, in bytes.
const READ_BYTES: usize = 16 << 10;

/// Codes of a close: RFC 6455 and its registry.
mod code {
    pub const NORMAL: u16 = 1000;
    pub const PROTOCOL: u16 = 1002;
    pub const INVALID_TEXT: u16 = 1007;
    pub const POLICY: u16 = 1008;
    pub const TOO_BIG: u16 = 1009;
    pub const ERROR: u16 = 1011;
    pub const RESTART: u16 = 1012;
    pub const TRY_AGAIN_LATER: u16 = 1013;
}
