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

use api_types::Schedule;
use axum::Json;
use events::{EventData, EventId, ScheduleId, SchedulePaused, ScheduleResumed, ScheduleState, TenantId};

use crate::auth::Caller;
use crate::error::ApiError;
use crate::followed::followed;
use crate::gateway::{Gateway, not_known};

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
    followed("schedules", || {
        let state: Option<ScheduleState> = gateway.view().get(tenant, &id.into());
        is_there(state.as_ref()).then_some(state)
    })
    .await
}

/// Has a schedule paused or not, whatever it was; all that it is then.
async fn set_paused(
    gateway: &Gateway,
    caller: &Caller,
    named: &str,
    paused: bool,
) -> Result<Json<Schedule>, ApiError> {
    let mut state = find(gateway, caller, named)?;
    let id = state.schedule.id;
    let now = gateway.clock().now();
    if state.paused_at.is_some() != paused {
        let said: EventData = if paused {
            SchedulePaused { schedule: id }.into()
        } else {
            ScheduleResumed { schedule: id }.into()
        };
        gateway.publish(caller, None, EventId::new(), now, said).await?;
        let is_said = until(gateway, &caller.tenant, id, |state| {
            state.is_none_or(|state| state.paused_at.is_some() == paused)
        });
        state = is_said.await?.ok_or_else(|| no_schedule(id))?;
    }
    Ok(Json(shown::shown(state, now)))
}
