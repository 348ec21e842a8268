//! Files in sandboxes.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::hidden::Hidden;

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = File))]
pub struct FileInfo {
    /// The last part of the path.
    pub name: String,
    /// The whole path inside the sandbox.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// Permission bits in octal: `0644`.
    #[cfg_attr(feature = "openapi", schema(example = "0644"))]
    pub mode: String,
    /// Whether it is a directory, or a symlink to one.
    pub is_dir: bool,
    /// Whether it is a symlink. The other fields are those of what it leads to; its own, where it leads nowhere.
    pub is_symlink: bool,
    /// When its content last changed.
    pub mod_time: DateTime<Utc>,
}

/// From where to where.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MoveRequest {
    /// The path that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub old_path: Option<String>,
    /// The path that it shall have. Missing folders are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub new_path: Option<String>,
}

/// A file that is text.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WriteRequest {
    /// Absolute, or relative to /workspace. Missing folders are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub path: Option<String>,
    /// The whole content; `""` for an empty file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = Option<String>))]
    pub content: Option<Hidden>,
    /// Permission bits in octal. By default a file that is there keeps its own, and a new one gets `0644`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
}

/// Which permissions.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChmodRequest {
    /// Absolute, or relative to /workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub path: Option<String>,
    /// Permission bits in octal, or a change of them as `chmod` takes it: `u+x`, `a-w,go=`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required, example = "0755"))]
    pub mode: Option<String>,
}
