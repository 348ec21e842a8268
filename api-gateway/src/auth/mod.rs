//! Who calls, what it wants to do, and whether it may.
//!
//! A key says which tenant calls and in which role, `X-User-ID` says for which of its users. A ticket stands for a key in front of
//! one WebSocket, a viewer link in front of one exec.

mod action;
mod authorize;
mod caller;
mod keys;
mod role;
pub mod ticket;
pub mod viewer;

pub use action::{Action, Effect, Scope};
pub use authorize::{Refusal, Resource, authorize, log_of};
pub(crate) use caller::MAX_USER_CHARS;
pub use caller::{Caller, user_id};
pub(crate) use keys::presented;
pub use keys::{ApiKey, KeyRing};
pub use role::Role;
