//! One runtime for everything that reads the log and acts on it.
//!
//! A [`Reactor`] says what it is called, which events it reads, what it folds them into, and what is to be done for one of its
//! entities now: an effect, a wait, or nothing. [`Runtime`] does the rest:
//!
//! - **One of many works.** It holds a lease; when its process dies, another replica takes over within the lease's
//!   [term](Reactor::term), and at once after a clean stop.
//! - **At least once.** What is to be done follows from the state. The state is read from the read models when work begins
//!   ([`Reactor::load`]), and goes on with the feed from the position that this is true at; nothing older is replayed. A
//!   reactor without a read model [keeps a cursor](Reactor::keeps_cursor) instead, which moves only past events whose effects
//!   are done. Either way an effect may happen twice, around a change of hands, and never no times: give it an id that
//!   follows from what it is for.
//! - **Entities do not wait for each other.** One effect of an entity is under way at a time, those of others beside it. One
//!   that fails is tried again with backoff. Each tenant has [its part](Limits::share) of what may be under way.
//! - **Time is the boot clock's.** An instant that the log names is measured from when it was first seen ([`Turn::passed`]),
//!   so a clock that is set makes nothing happen early, and keeps nothing late.
//! - **All of it is bounded**: how many events are taken at once, how many effects are under way and for how long, how many
//!   entities may be waiting for their turn before no more events are taken, and how many lines a failure writes.
//!
//! It knows nothing of NATS or SQL: [`Outside`] is the seam, and [`LogOutside`] the real thing behind it.

mod effect_runner;
mod entities;
mod health;
mod outside;
mod reactor;
mod runtime;
#[cfg(test)]
mod simulated;
mod tenure;
#[cfg(test)]
mod tests;
mod turn;

pub use health::{Health, Status};
pub use outside::{CursorError, Events, Held, LogOutside, Outside, StoredCursor};
pub use reactor::{Effecting, Failure, Limits, Loaded, Next, Reactor, Touched};
pub use runtime::Runtime;
pub use turn::{Turn, Turns};
