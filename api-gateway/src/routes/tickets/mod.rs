//! Tickets: how a browser gets a WebSocket. It cannot set headers on one, and a key in a URL ends up in logs.

pub mod issue;
