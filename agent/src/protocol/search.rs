//! Files that are looked for below a directory, to be taken out of the sandbox.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Which files, and how far to look. What is past a bound is refused, and nothing of it answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// The directory; a relative one begins at the workspace.
    pub directory: String,
    /// [`Patterns`](crate::patterns::Patterns) of paths below it.
    pub patterns: Vec<String>,
    /// Most files that may match.
    pub most_files: u32,
    /// Most directories that may be above one another.
    pub most_depth: u32,
    /// How long it may take.
    pub within: Duration,
}

/// A regular file that matches, by the path below the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundFile {
    /// Without `.`, `..` and symlinks.
    pub path: String,
    /// As it was when it was found.
    pub size: u64,
    /// Permission bits (`0o7777`).
    pub mode: u32,
}

/// The end of a search: what matches and was passed over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Searched {
    /// How many there are.
    pub passed_over: u64,
    /// The first of them.
    pub first: Vec<PassedOver>,
}

impl Searched {
    /// How many of those that were passed over are named.
    pub const MOST_NAMED: usize = 16;
}

/// Something that matches and is no file to be taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassedOver {
    /// Its path, with replacement characters where it is no UTF-8.
    pub path: String,
    pub reason: PassedOverReason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PassedOverReason {
    /// A symlink: where it leads may be anywhere.
    Symlink,
    /// A FIFO, a socket or a device.
    Special,
    /// Its name is not UTF-8.
    Name,
}
