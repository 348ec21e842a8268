//! `GET /schedules`

use api_types::ScheduleList;
use axum::Json;
use axum::extract::State;

use super::{of_tenant, shown};
use crate::auth::Caller;
use crate::gateway::Gateway;

/// All schedules of the tenant, the oldest first.
#[utoipa::path(
    get,
    path = "/schedules",
    tag = "schedules",
    responses((status = 200, description = "The schedules", body = ScheduleList))
)]
pub(crate) async fn list(State(gateway): State<Gateway>, caller: Caller) -> Json<ScheduleList> {
    let now = gateway.clock().now();
    let states = of_tenant(&gateway, &caller.tenant).into_iter();
    Json(ScheduleList { schedules: states.map(|state| shown::shown(state, now)).collect() })
}
