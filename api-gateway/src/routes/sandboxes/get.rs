//! `GET /sandboxes/{id}`

use axum::Json;
use axum::extract::State;
use record::Past;

use super::past::{self, AtQuery, Shown};
use super::shown;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::{Gateway, no_sandbox};

/// One sandbox. A destroyed one does not exist any more; one that could not be made is there with state `error`.
///
/// With `at`: as it was then, whatever became of it, with `position` and `changed_at` of the event that made it so.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}",
    tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox"), AtQuery),
    responses(
        (status = 200, description = "The sandbox", body = Shown),
        (status = 400, description = "No position and no time", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
        (status = 410, description = "What made it so is not kept any more", body = ErrorBody),
    )
)]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<AtQuery>,
) -> Result<Json<Shown>, ApiError> {
    let Some(moment) = query.read()? else {
        let state = gateway.sandbox(&caller, id).await?;
        return Ok(Json(Shown::Now(shown(&state, &gateway))));
    };
    let last = moment.last(&gateway).await?;
    let past = Past::one(gateway.store(), &caller.tenant, &id.into(), last).await.map_err(ApiError::store)?;
    let past = past.ok_or_else(|| no_sandbox(id))?;
    Ok(Json(Shown::Then(past::answer(past, moment, &gateway))))
}
