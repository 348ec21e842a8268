use events::JobArtifact;
use serde::{Deserialize, Serialize};

/// A line of what [`CollectArtifacts`](super::LinkOp::CollectArtifacts) answers, in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CollectedLine {
    /// A file that is in the store of objects now, in the place of its job.
    Stored(JobArtifact),
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
