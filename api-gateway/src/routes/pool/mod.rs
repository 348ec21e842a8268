//! The pool of shared machines of the Go server.

pub mod status;
