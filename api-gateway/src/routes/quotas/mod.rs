//! Quotas.

pub mod get;
pub mod list;
pub mod summary;
pub mod usage;
