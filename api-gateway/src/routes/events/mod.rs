//! Events.

pub mod follow;
pub mod query;
pub mod ws;
