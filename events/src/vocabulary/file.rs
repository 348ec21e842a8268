//! What happens to files in a sandbox, when somebody from outside does it.

use serde::{Deserialize, Serialize};

words! {
    /// What happens to a file in a sandbox.
    File(FileEvent) {
        Written(FileWritten) = "file.written" [by_executors],
        Read(FileRead) = "file.read" [by_executors],
        Deleted(FileDeleted) = "file.deleted" [by_executors],
        Moved(FileMoved) = "file.moved" [by_executors],
        ModeChanged(FileModeChanged) = "file.mode_changed" [by_executors],
    }
}

/// `file.written`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileWritten {
    /// The path, as the client gave it.
    pub path: String,
    /// The size, in bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
}

/// `file.read`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileRead {
    /// The path, as the client gave it.
    pub path: String,
    /// The size of the file, in bytes.
    pub size: u64,
    /// Which bytes of it, where not all were asked for: the first one, and the one after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(u64, u64)>,
}

/// `file.deleted`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileDeleted {
    /// The path, as the client gave it.
    pub path: String,
    /// Whether a directory went with all that is in it.
    pub recursive: bool,
}

/// `file.moved`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileMoved {
    /// The old path, as the client gave it.
    pub from: String,
    /// The new path, as the client gave it.
    pub to: String,
}

/// `file.mode_changed`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileModeChanged {
    /// The path, as the client gave it.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
}
