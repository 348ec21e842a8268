//! `GET /sandboxes/{id}/execs`

use api_types::ExecList;
use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use events::{ExecId, ExecState, SandboxId};
use record::ExecPage;
use serde::Deserialize;
use utoipa::IntoParams;

use super::find;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::shown::shown;
use crate::extract::{QueryOf, SandboxPath, whole};
use crate::gateway::Gateway;

/// How many a page has at most, and where the request does not say.
pub(crate) const MAX_LIMIT: u32 = 1000;
const DEFAULT_LIMIT: u32 = 100;

/// Which of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// At most so many: 1 to 1000, 100 by default.
    pub limit: Option<String>,
    /// `running` (pending ones too) or `ended`.
    pub state: Option<String>,
    /// Those that were asked for before this exec: the `next` of the page before.
    pub before: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    limit: u32,
    ended: Option<bool>,
    before: Option<ExecId>,
}

impl ListQuery {
    pub(crate) fn read(&self) -> Result<Wanted, ApiError> {
        let limit = match self.limit.as_deref() {
            None => Some(DEFAULT_LIMIT),
            Some(text) => whole(text).filter(|limit| (1..=MAX_LIMIT).contains(limit)),
        };
        Ok(Wanted {
            limit: limit.ok_or_else(|| ApiError::bad_request(format!("limit must be 1 to {MAX_LIMIT}")))?,
            ended: match self.state.as_deref() {
                None => None,
                Some("running") => Some(false),
                Some("ended") => Some(true),
                Some(_) => return Err(ApiError::bad_request("state must be running or ended")),
            },
            before: match &self.before {
                None => None,
                Some(text) => Some(
                    text.parse().map_err(|_| ApiError::bad_request("before must be the id of an exec"))?,
                ),
            },
        })
    }
}

/// The execs of a sandbox, the newest first, also after it is gone. Pages are stable: what begins in between is on none of
/// the pages that follow.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/execs",
    tag = "execs",
    params(("id" = String, Path, description = "The sandbox, destroyed or not"), ListQuery),
    responses(
        (status = 200, description = "The execs", body = ExecList),
        (status = 400, description = "No limit, no state, or no exec to go on from", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<ExecList>, ApiError> {
    let wanted = query.read()?;
    // The record, not the live view: an exec outlives its sandbox.
    gateway.recorded_sandbox(&caller, id).await?;
    let before = match wanted.before {
        None => None,
        Some(before) => {
            let state = find(&gateway, &caller, before).await?;
            Some((state.started_at, state.id))
        }
    };
    // One more than asked for tells whether there is another page.
    let mut states = read(&gateway, id, before, wanted.ended, wanted.limit + 1).await?;
    let more = states.len() > wanted.limit as usize;
    states.truncate(wanted.limit as usize);
    let next = states.last().filter(|_| more).map(|state| state.id.to_string());
    Ok(Json(ExecList { execs: states.iter().map(shown).collect(), next }))
}

/// The next execs of a sandbox, by whether they have ended. The store finds them by whether more comes of them: those that have ended
/// and whose output is open stand among those that run. A sandbox has few of either, so it never takes many pages to skip them.
async fn read(
    gateway: &Gateway,
    sandbox: SandboxId,
    mut before: Option<(DateTime<Utc>, ExecId)>,
    ended: Option<bool>,
    count: u32,
) -> Result<Vec<ExecState>, ApiError> {
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    loop {
        let page = ExecPage { before, ended: ended.filter(|ended| !ended), limit: count };
        let states = gateway.store().execs(sandbox, &page).await.map_err(ApiError::store)?;
        before = states.last().map(|state| (state.started_at, state.id));
        let is_last = states.len() < wanted;
        found.extend(
            states.into_iter().filter(|state| ended.is_none_or(|ended| state.end.is_some() == ended)),
        );
        if is_last || found.len() >= wanted {
            found.truncate(wanted);
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_page_is_refused() {
        let some = |text: &str| Some(text.to_owned());
        for query in [
            ListQuery { limit: some("0"), ..ListQuery::default() },
            ListQuery { limit: some("1001"), ..ListQuery::default() },
            ListQuery { limit: some("-1"), ..ListQuery::default() },
            ListQuery { state: some("exited"), ..ListQuery::default() },
            ListQuery { before: some("sb-1"), ..ListQuery::default() },
        ] {
            assert!(query.read().is_err(), "{query:?}");
        }
        let all = ListQuery::default().read().unwrap();
        assert_eq!(all, Wanted { limit: 100, ended: None, before: None });
    }
}
