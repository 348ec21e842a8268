//! Prepared machines of the Go server. This server has none yet.

pub mod list;
