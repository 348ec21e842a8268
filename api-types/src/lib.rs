//! What the HTTP API is asked and what it answers, once: the gateway writes these types and the crate `client` reads them.
//!
//! Who reads them passes over fields that it does not know, and keeps words that it does not know ([`Open`]), so that a newer
//! server breaks no client. With the feature `openapi` they have schemas for the OpenAPI document.

mod error;
mod execs;
mod records;
mod sandboxes;
mod word;

pub use error::{ErrorBody, ErrorCode};
pub use execs::{
    AskedToEnd, Detached, EndCause, Exec, ExecLinks, ExecList, ExecReply, ExecRequest, ExecState,
    TerminalSize, Tty,
};
pub use records::{
    EndRecord, ExecOutcome, FailureRecord, GoneRecord, OutputRecord, OutputStream, WhyGone, is_zero,
};
pub use sandboxes::{ExtendRequest, Network, Sandbox, SandboxState, SpawnRequest};
pub use word::{Open, Word};
