//! Schedules: jobs that are submitted when their time has come.

pub mod create;
pub mod delete;
pub mod get;
pub mod list;
pub mod pause;
pub mod resume;
pub mod sealed;
pub mod shown;
pub mod spec;
pub mod trigger;
pub mod update;
pub mod work;

use std::time::Duration;

use events::{ScheduleId, ScheduleState, TenantId};
use tokio::time::{Instant, sleep};

use crate::auth::Caller;
use crate::error::ApiError;
use crate::gateway::{Gateway, not_known};

/// How long a change may take to be recorded, and how often that is looked for.
const RECORD_PATIENCE: Duration = Duration::from_secs(20);
const RECORD_PAUSE: Duration = Duration::from_millis(2);

/// There is no such schedule, or it is another tenant's.
pub(crate) fn no_schedule(named: impl std::fmt::Display) -> ApiError {
    ApiError::absent("schedule", named)
}

fn of_tenant(gateway: &Gateway, tenant: &TenantId) -> Vec<ScheduleState> {
    gateway.view().list(tenant)
}

/// One schedule of the tenant, by its id or its name.
fn find(gateway: &Gateway, caller: &Caller, named: &str) -> Result<ScheduleState, ApiError> {
    let found = match named.parse::<ScheduleId>() {
        Ok(id) => gateway.view().get(&caller.tenant, &id.into()),
        Err(_) => of_tenant(gateway, &caller.tenant).into_iter().find(|state| state.schedule.name == named),
    };
    found.ok_or_else(|| not_known(caller, no_schedule(named)))
}

/// Waits until the view shows what was just published.
async fn until(
    gateway: &Gateway,
    tenant: &TenantId,
    id: ScheduleId,
    is_there: impl Fn(Option<&ScheduleState>) -> bool,
) -> Result<Option<ScheduleState>, ApiError> {
    let began = Instant::now();
    loop {
        let state: Option<ScheduleState> = gateway.view().get(tenant, &id.into());
        if is_there(state.as_ref()) {
            return Ok(state);
        }
        if began.elapsed() > RECORD_PATIENCE {
            return Err(ApiError::unavailable(
                "the recorder does not follow: a change of schedules is not recorded",
            ));
        }
        sleep(RECORD_PAUSE).await;
    }
}
