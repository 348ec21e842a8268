//! Artifacts: files that a job left, kept beside the log.

pub mod list;
pub mod read;

use events::{JobArtifact, JobState, ObjectOwner, ObjectPlace};
use objects::{ReadError, Store};

use crate::error::ApiError;
use crate::gateway::Gateway;

/// Where the artifacts of a job are: below its own tenant, whoever asks.
fn place(job: &JobState) -> ObjectPlace {
    ObjectPlace { tenant: job.tenant.clone(), owner: ObjectOwner::Job(job.id) }
}

/// The artifact of this path. Only what the record names is looked for in the store.
fn named<'a>(job: &'a JobState, path: &str) -> Result<&'a JobArtifact, ApiError> {
    let found = job.artifacts.iter().find(|artifact| artifact.path == path);
    found.ok_or_else(|| ApiError::absent("artifact", path))
}

fn store(gateway: &Gateway) -> Result<&Store, ApiError> {
    let missing = || ApiError::not_now("this server has no store of artifacts");
    gateway.config().objects.as_ref().ok_or_else(missing)
}

/// What a client is told of an artifact that the record names and the store does not give.
fn unread(error: ReadError) -> ApiError {
    match error {
        ReadError::NotFound => ApiError::gone("the artifact is not kept any more"),
        damaged @ ReadError::Damaged => ApiError::internal(damaged),
        ReadError::Store(error) => ApiError::unavailable(error),
    }
}
