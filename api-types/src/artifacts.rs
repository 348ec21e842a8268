//! Files that jobs left.

use serde::{Deserialize, Serialize};

/// A file that a job left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobArtifact {
    /// Its path, relative to the working directory of the job.
    #[cfg_attr(feature = "openapi", schema(example = "out/report.html"))]
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Permission bits in octal: `0644`.
    #[cfg_attr(feature = "openapi", schema(example = "0644"))]
    pub mode: String,
}

/// The files that a job left.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobArtifacts {
    /// By path.
    pub artifacts: Vec<JobArtifact>,
}
