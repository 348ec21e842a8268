//! Tickets: how a browser gets a WebSocket. It cannot set headers on one, and a key in a URL ends up in logs.

pub mod issue;

/// The subprotocol of every WebSocket here. A client that offers a ticket offers this beside it, because a browser wants
/// one of its offers to be taken, and a ticket is never said back.
pub const PROTOCOL: &str = "stacyvm.v1";
