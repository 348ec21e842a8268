//! The recorder: copies events from the transport to the store, in order, each once.
//!
//! It is the only writer of the log. It gives events their positions, chains their hashes, keeps the read models in the
//! same transaction, and announces what it has committed. It knows no business rules; what it refuses to record is what
//! would break a promise of the log:
//!
//! - an event that is recorded already (by its id, or by the state that it would have to change);
//! - output past a gap, or an end that claims more output than is recorded: the producer sends everything again from the
//!   first batch that was not acknowledged, so the gap will be filled and this comes again (go-back-N);
//! - anything of an exec after its end, and a second end of a sandbox.
//!
//! Output that overlaps what is recorded is cut to what is new, so the record holds each byte once.
//!
//! The decisions are in [`Numberer`], which is pure; [`run`] feeds it.

mod appending;
mod cache;
mod encoder;
mod gathered;
mod jetstream;
mod numberer;
mod queries;
mod retention;
mod run;
mod steady_clock;

pub use encoder::{Encode, EncodeError, Encoder, Sealing};
pub use events::DropReason;
pub use jetstream::JetStreamTransport;
pub use numberer::{Draft, DraftError, Incoming, Known, Missing, Numberer};
pub use queries::serve_queries;
pub use retention::{RetainError, Retention, RetentionPolicy, Tell, retain};
pub use run::{Messages, RecorderConfig, Transport, run, run_with};
pub use steady_clock::SteadyClock;
