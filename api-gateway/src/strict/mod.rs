//! Nothing that a request says is ignored in silence.
//!
//! Fields of a body and parameters of a query that nothing here reads are named in `X-Unknown-Fields` and in the log; a
//! client that sends `Prefer: handling=strict` (RFC 7240) is refused instead, before anything has happened.

mod fields;
mod handling;
mod layer;
mod notice;
mod parameters;
mod unread;

pub(crate) use handling::Handling;
pub use layer::watch;
pub use parameters::Parameters;
pub use unread::Unread;
pub(crate) use unread::parse_object;
