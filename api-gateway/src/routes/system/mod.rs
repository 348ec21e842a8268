//! How the server and the machine under it fare, for people who look after them.

pub mod diagnostics;
pub mod host;
pub mod stats;
