//! `GET /sandboxes`

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use events::{SandboxId, SandboxState};
use record::Past;
use serde::Deserialize;
use utoipa::IntoParams;

use super::past::{self, AtQuery, Shown};
use super::shown;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, whole};
use crate::gateway::Gateway;
use crate::routes::execs::output::flag;

/// How many ended ones a page has at most, and where the request does not say.
pub(crate) const MAX_LIMIT: u32 = 1000;
const DEFAULT_LIMIT: u32 = 100;
const NEXT_BEFORE: HeaderName = HeaderName::from_static("x-next-before");

/// Which of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// `true`: ended ones too, the newest first, in pages.
    pub all: Option<String>,
    /// With `all`, at most so many: 1 to 1000, 100 by default.
    pub limit: Option<String>,
    /// With `all`, those before this sandbox: the `X-Next-Before` of the page before.
    pub before: Option<String>,
}

impl ListQuery {
    /// Where a page of all begins, and how long it is; `None` where only live ones are wanted.
    pub(crate) fn page(&self) -> Result<Option<(Option<SandboxId>, u32)>, ApiError> {
        if !flag(self.all.as_deref(), "all")? {
            if self.limit.is_some() || self.before.is_some() {
                return Err(ApiError::bad_request("limit and before are for all=true"));
            }
            return Ok(None);
        }
        let limit = match self.limit.as_deref() {
            None => Some(DEFAULT_LIMIT),
            Some(text) => whole(text).filter(|limit| (1..=MAX_LIMIT).contains(limit)),
        };
        let limit = limit.ok_or_else(|| ApiError::bad_request(format!("limit must be 1 to {MAX_LIMIT}")))?;
        let before = self.before.as_deref().map(|text| {
            text.parse().map_err(|_| ApiError::bad_request("before must be the id of a sandbox"))
        });
        Ok(Some((before.transpose()?, limit)))
    }
}

/// All sandboxes of the tenant that have not ended, the oldest first, as a bare array. With `at`: those that had not
/// ended then, as they were. With `all=true`: ended ones too, the newest first; where there are more, the header
/// `X-Next-Before` says what to send as `before`.
#[utoipa::path(
    get,
    path = "/sandboxes",
    tag = "sandboxes",
    params(AtQuery, ListQuery),
    responses(
        (status = 200, description = "The sandboxes", body = [Shown]),
        (status = 400, description = "No position and no time, no such page", body = ErrorBody),
        (status = 410, description = "What was then is not kept any more", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<AtQuery>,
    QueryOf(list): QueryOf<ListQuery>,
) -> Result<Response, ApiError> {
    if let Some((before, limit)) = list.page()? {
        if query.at.is_some() {
            return Err(ApiError::bad_request("at and all exclude each other"));
        }
        let states =
            gateway.store().sandboxes(&caller.tenant, before, limit).await.map_err(ApiError::store)?;
        let next = states.last().filter(|_| states.len() == limit as usize).map(|state| state.id.to_string());
        let page: Vec<_> = states.iter().map(|state| Shown::Now(shown(state, &gateway))).collect();
        let mut response = Json(page).into_response();
        if let Some(next) = next.and_then(|next| HeaderValue::try_from(next).ok()) {
            response.headers_mut().insert(NEXT_BEFORE, next);
        }
        return Ok(response);
    }
    if let Some(moment) = query.read()? {
        let last = moment.last(&gateway).await?;
        let mut live = Past::<SandboxState>::live(gateway.store(), &caller.tenant, last)
            .await
            .map_err(ApiError::store)?;
        live.sort_by_key(|past| (past.state.requested_at, past.state.id));
        let shown = live.into_iter().map(|past| Shown::Then(past::answer(past, moment, &gateway)));
        return Ok(Json(shown.collect::<Vec<_>>()).into_response());
    }
    let mut states = gateway.live_sandboxes(&caller);
    states.sort_by_key(|state| (state.requested_at, state.id));
    let page: Vec<_> = states.iter().map(|state| Shown::Now(shown(state, &gateway))).collect();
    Ok(Json(page).into_response())
}
