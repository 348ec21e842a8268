//! `GET /sandboxes`

use axum::Json;
use axum::extract::State;

use super::Sandbox;
use super::past::{self, AtQuery, Shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::QueryOf;
use crate::gateway::Gateway;

/// All sandboxes of the tenant that have not ended, the oldest first, as a bare array. With `at`: those that had not
/// ended then, as they were.
#[utoipa::path(
    get,
    path = "/sandboxes",
    tag = "sandboxes",
    params(AtQuery),
    responses(
        (status = 200, description = "The sandboxes", body = [Shown]),
        (status = 400, description = "No position and no time", body = ErrorBody),
        (status = 410, description = "What was then is not kept any more", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<AtQuery>,
) -> Result<Json<Vec<Shown>>, ApiError> {
    if let Some(moment) = query.read()? {
        let last = moment.last(&gateway).await?;
        let mut live = past::live(gateway.store(), &caller.tenant, last).await.map_err(ApiError::store)?;
        live.sort_by_key(|past| (past.state.requested_at, past.state.id));
        let shown = live.into_iter().map(|past| Shown::Then(past.into_answer(moment, &gateway)));
        return Ok(Json(shown.collect()));
    }
    let mut states = gateway.view().live_sandboxes();
    states.retain(|state| state.tenant == caller.tenant);
    states.sort_by_key(|state| (state.requested_at, state.id));
    Ok(Json(states.iter().map(|state| Shown::Now(Sandbox::of(state, &gateway))).collect()))
}
