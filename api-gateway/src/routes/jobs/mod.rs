//! Jobs: a sandbox, files in, a command, and the end of the sandbox, as one durable unit. Whoever drives them is elsewhere: here they
//! are submitted, looked at and cancelled.

pub mod artifacts;
pub mod attempts;
pub mod batch;
pub mod cancel;
pub mod get;
pub mod list;
pub mod output;
pub mod retry;
pub mod shown;
pub mod spec;
pub mod submit;
pub mod timeline;

use std::time::Duration;

use events::{JobId, JobState, TenantId};
use feed::FeedReader;
use tokio::time::Instant;

use crate::auth::{Caller, Resource, authorize};
use crate::error::ApiError;
use crate::gateway::{Gateway, not_known};

/// How long a change may take to be recorded.
const RECORD_PATIENCE: Duration = Duration::from_secs(20);

/// There is no such job, or it is another tenant's.
pub(crate) fn no_job(named: impl std::fmt::Display) -> ApiError {
    ApiError::absent("job", named)
}

/// A job of a tenant, from the record.
async fn recorded(gateway: &Gateway, tenant: &TenantId, id: JobId) -> Result<Option<JobState>, ApiError> {
    gateway.store().get_of::<JobState>(tenant, id).await.map_err(ApiError::store)
}

/// The job that the path names.
async fn find(gateway: &Gateway, caller: &Caller, id: JobId) -> Result<JobState, ApiError> {
    let state = recorded(gateway, &caller.tenant, id).await?.ok_or_else(|| not_known(caller, no_job(id)))?;
    let resource = Resource::Job { tenant: &state.tenant, owner: state.owner.as_deref() };
    authorize(caller, caller.action, resource).map_err(|refusal| refusal.answer(caller, || no_job(id)))?;
    Ok(state)
}

/// Waits until the record has made of a job what is waited for, and says what it is then: at the latest when the time is up. The
/// reader must be older than what is waited for.
async fn wait(
    gateway: &Gateway,
    tenant: &TenantId,
    id: JobId,
    mut reader: FeedReader,
    longest: Duration,
    is_done: impl Fn(&JobState) -> bool,
) -> Result<Option<JobState>, ApiError> {
    let until = Instant::now() + longest;
    loop {
        let state = recorded(gateway, tenant, id).await?;
        if state.as_ref().is_some_and(&is_done) {
            return Ok(state);
        }
        tokio::select! {
            next = reader.next() => drop(next.map_err(ApiError::unavailable)?),
            () = tokio::time::sleep_until(until) => return Ok(state),
            () = gateway.closing().cancelled() => return Ok(state),
        }
    }
}
