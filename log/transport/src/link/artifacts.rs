use events::ContentHash;
use serde::{Deserialize, Serialize};

/// A file that was taken out of a sandbox and is in the store of objects, in the place of its job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredArtifact {
    /// Its path below the directory that it was looked for in: relative, without `.`, `..` and empty parts.
    pub path: String,
    /// How many bytes it has.
    pub size: u64,
    /// What they are.
    pub sha256: ContentHash,
    /// Permission bits (`0o777`).
    pub mode: u32,
}

/// A line of what [`CollectArtifacts`](super::LinkOp::CollectArtifacts) answers, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CollectedLine {
    /// A file that is stored.
    Stored(StoredArtifact),
    /// A file that matches and is not stored; the first hundred of them.
    LeftOut {
        /// Its path, with replacement characters where it is no UTF-8.
        path: String,
        /// `symlink`, `special`, `name` (no UTF-8), `too_large`, `no_room` (with those before it) or `changed` (while it was read).
        reason: String,
    },
    /// The last line.
    End {
        /// How many match and are not stored.
        left_out: u64,
    },
}
