//! Files that leave a sandbox to be kept, and come into another one.
//!
//! Both ways go through the agent, which alone resolves paths, and through the store of objects, which hashes what comes. Both may be done
//! twice: what is stored is named by its contents, what is put into a sandbox replaces what was there.

mod collect;
mod place;

pub use agent::patterns::{NotAPattern, Patterns};
pub use collect::{CollectError, Collected, LeftOut, LeftOutReason, Wanted, collect};
pub use place::{PlaceError, place};

use events::ContentHash;

/// A file that was taken out of a sandbox and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// Its path below the directory that it was looked for in: relative, without `.`, `..` and empty parts.
    pub path: String,
    /// How many bytes it has.
    pub size: u64,
    /// What they are.
    pub sha256: ContentHash,
    /// Permission bits (`0o777`).
    pub mode: u32,
}
