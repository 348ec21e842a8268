//! Quotas.

pub mod summary;
