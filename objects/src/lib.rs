//! Bytes that are too large for the log, kept beside it: in a directory or in a bucket of an S3-compatible service.
//!
//! An object never changes and is never seen in part. Its key (`events::ObjectKey`) begins with its tenant and ends with the
//! SHA-256 of its bytes, which is counted while they come in. This crate is the only one that sees `object_store`.

mod error;
mod put;
mod settings;
mod store;

pub use error::{Fault, OpenError, PutError, ReadError, StoreError};
pub use put::{Put, Stored};
pub use settings::{Backend, Limits, S3, Settings};
pub use store::{Listed, Object, Store};
