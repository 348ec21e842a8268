//! Files that leave a sandbox to be kept, and come into another one.
//!
//! Both ways go through the agent, which alone resolves paths, and through the store of objects, which hashes what comes. Both may be done
//! twice: what is stored is named by its contents, what is put into a sandbox replaces what was there.

mod collect;
mod place;

pub use agent::patterns::{NotAPattern, Patterns};
pub use collect::{CollectError, Collected, LeftOut, LeftOutReason, Wanted, collect};
/// A file that was taken out of a sandbox and stored.
pub use events::JobArtifact as Artifact;
pub use place::{PlaceError, place};
