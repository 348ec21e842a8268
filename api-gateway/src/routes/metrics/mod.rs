//! Numbers about the server.

pub mod prometheus;
pub mod summary;
