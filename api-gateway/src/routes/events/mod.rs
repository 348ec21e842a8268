//! The log, as clients may read it.

pub mod follow;
