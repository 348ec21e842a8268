//! Jobs: a sandbox, files in, a command, artifacts out, and the end of the sandbox, as one durable unit.

pub mod artifacts;

use events::{JobId, JobState};

use crate::auth::{Caller, Resource, authorize};
use crate::error::ApiError;
use crate::gateway::{Gateway, not_known};

/// There is no such job, or it is another tenant's.
pub(crate) fn no_job(named: impl std::fmt::Display) -> ApiError {
    ApiError::absent("job", named)
}

/// The tenant's job, from the record.
pub(crate) async fn find(gateway: &Gateway, caller: &Caller, id: JobId) -> Result<JobState, ApiError> {
    let state = gateway.store().get_of::<JobState>(&caller.tenant, id).await.map_err(ApiError::store)?;
    let state = state.ok_or_else(|| not_known(caller, no_job(id)))?;
    authorize(caller, caller.action, Resource::Tenant(&state.tenant))
        .map_err(|refusal| refusal.answer(caller, || no_job(id)))?;
    Ok(state)
}
