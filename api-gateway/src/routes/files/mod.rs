//! Files in a sandbox. Paths are resolved inside the sandbox by its agent, so nothing here can lead to the host.

pub mod chmod;
pub mod delete;
pub mod glob;
pub mod list;
mod listing;
pub mod path;
pub mod read;
pub mod rename;
pub mod stat;
pub mod upload;
mod version;
pub mod write;

use api_types::FileInfo;
use serde::Deserialize;
use transport::{FaultCode, LinkError};
use utoipa::IntoParams;

/// An entry as clients see it.
fn shown(entry: transport::FileEntry) -> FileInfo {
    FileInfo {
        name: entry.name,
        path: entry.path,
        size: entry.size,
        mode: format!("{:04o}", entry.mode & 0o7777),
        is_dir: entry.is_dir,
        is_symlink: entry.is_symlink,
        mod_time: entry.modified_at,
    }
}

/// Which file.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PathQuery {
    /// Absolute, or relative to /workspace.
    #[param(required)]
    pub path: Option<String>,
}

/// Whether there is nothing at the path, nor can be.
fn is_missing(error: &LinkError) -> bool {
    match error {
        LinkError::Refused(fault) => matches!(fault.code, FaultCode::NotFound | FaultCode::NotADirectory),
        LinkError::Unreachable | LinkError::Unanswered | LinkError::Broken(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_its_mode_in_octal() {
        let file = shown(transport::FileEntry {
            name: "f".to_owned(),
            path: "/tmp/f".to_owned(),
            size: 3,
            mode: 0o100_640,
            is_dir: false,
            is_symlink: true,
            modified_at: chrono::DateTime::UNIX_EPOCH,
        });
        assert_eq!(
            serde_json::to_value(file).unwrap(),
            serde_json::json!({
                "name": "f", "path": "/tmp/f", "size": 3, "mode": "0640", "is_dir": false,
                "is_symlink": true, "mod_time": "1970-01-01T00:00:00Z"
            })
        );
    }
}
