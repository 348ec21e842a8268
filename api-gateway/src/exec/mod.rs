//! Execs, from the request to their end. What runs is decided here; how it is shown is the business of `stream`.

pub mod end;
pub mod input;
pub mod quoting;
pub mod request;
pub mod shown;
pub mod signal;
pub mod start;
