//! `GET /sandboxes/{id}/timeline`

use api_types::{Open, Timeline, TimelineEntry, TimelineExec};
use axum::Json;
use axum::extract::State;
use events::{EventData, ExecEnd, ExecEvent, ExecId, Frame, Position, SandboxId, TenantId};
use futures::{StreamExt, TryStreamExt};
use record::{EventFilter, StoreError};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::logs::detail;
use super::shown;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, SandboxPath};
use crate::gateway::Gateway;

const DEFAULT_ENTRIES: u32 = 200;
pub(crate) const MAX_ENTRIES: u32 = 1000;
/// How many execs are looked up at once.
const LOOKUPS: usize = 4;

/// Which part.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TimelineQuery {
    /// Only what follows this position: the `next_after` of the page before.
    pub after: Option<u64>,
    /// How many entries: 1 to 1000, 200 by default.
    pub limit: Option<u32>,
}

impl TimelineQuery {
    pub(crate) fn read(&self) -> Result<(Position, u32), ApiError> {
        let after = Position(self.after.unwrap_or(0));
        if after.0 > i64::MAX.unsigned_abs() {
            return Err(ApiError::bad_request("after must be a position"));
        }
        let limit = self.limit.unwrap_or(DEFAULT_ENTRIES);
        if !(1..=MAX_ENTRIES).contains(&limit) {
            return Err(ApiError::bad_request(format!("limit must be 1 to {MAX_ENTRIES}")));
        }
        Ok((after, limit))
    }
}

/// What happened to a sandbox and in it, in the order of the log: its life with the reasons, execs with their ends, files.
/// Output and input of execs are not part of it. A destroyed sandbox has its timeline too.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/timeline",
    tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox"), TimelineQuery),
    responses(
        (status = 200, description = "A page of it", body = Timeline),
        (status = 400, description = "No such page", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
        (status = 410, description = "Its beginning is not kept any more: read it `after` the floor", body = ErrorBody),
    )
)]
pub(crate) async fn timeline(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    QueryOf(query): QueryOf<TimelineQuery>,
) -> Result<Json<Timeline>, ApiError> {
    let (after, limit) = query.read()?;
    let state = gateway.recorded_sandbox(&caller, id).await?;
    let filter = filter(&caller.tenant, id);
    // One more than fits tells whether there is another page.
    let mut frames = gateway.store().read(&filter, after, limit + 1).await.map_err(ApiError::store)?;
    let more = frames.len() > limit as usize;
    frames.truncate(limit as usize);
    let next_after = frames.last().filter(|_| more).map(|last| last.position.0);
    let entries = futures::stream::iter(frames)
        .map(|frame| entry(&gateway, frame))
        .buffered(LOOKUPS)
        .try_filter_map(|entry| std::future::ready(Ok(entry)))
        .try_collect()
        .await
        .map_err(ApiError::store)?;
    let (ended_at, reason) = super::past::end(&state);
    let sandbox = shown(&state, &gateway);
    let reason = reason.map(super::past::reason_name);
    Ok(Json(Timeline { sandbox, ended_at, reason, entries, next_after }))
}

fn filter(tenant: &TenantId, sandbox: SandboxId) -> EventFilter {
    let types = EventData::WORDS.iter().filter(|word| !word.by_name_only);
    EventFilter {
        subject: None,
        tenant: Some(tenant.clone()),
        sandbox: Some(sandbox),
        exec: None,
        types: types.map(|word| word.name.to_owned()).collect(),
    }
}

async fn entry(gateway: &Gateway, frame: Frame) -> Result<Option<TimelineEntry>, StoreError> {
    #[derive(Deserialize)]
    struct Header {
        data: Box<RawValue>,
    }
    // An event of a newer build has no entry here.
    let (Ok(event), Ok(Header { data })) = (frame.decode(), serde_json::from_slice(&frame.header)) else {
        return Ok(None);
    };
    let exec = match begun(&event.data) {
        Some(id) => exec(gateway, id).await?,
        None => None,
    };
    Ok(Some(TimelineEntry {
        position: frame.position.0,
        time: event.time,
        r#type: event.data.type_name().into(),
        category: Open::read(event.data.category().as_str()),
        actor: event.actor.to_string(),
        request_id: event.request_id.as_ref().map(ToString::to_string),
        summary: detail(&event.data),
        exec_id: event.data.exec().map(|exec| exec.to_string()),
        exec,
        data,
    }))
}

/// The exec that begins with an event. One that never started begins with its end.
const fn begun(data: &EventData) -> Option<ExecId> {
    if let EventData::Exec(event) = data
        && event.word().begins
    {
        return Some(event.exec());
    }
    None
}

async fn exec(gateway: &Gateway, id: ExecId) -> Result<Option<TimelineExec>, StoreError> {
    let Some(state) = gateway.store().exec(id).await? else {
        return Ok(None);
    };
    let end_position = match &state.end {
        Some(_) => {
            let ends = ExecEvent::WORDS.iter().filter(|word| word.ends);
            let types = ends.map(|word| word.name.to_owned()).collect();
            let filter = EventFilter { exec: Some(id), types, ..EventFilter::default() };
            gateway.store().read(&filter, Position::ZERO, 1).await?.first().map(|frame| frame.position.0)
        }
        None => None,
    };
    let duration_us = state.end.as_ref().and_then(ExecEnd::ended).map(|ended| ended.duration_us);
    Ok(Some(TimelineExec { exec: crate::exec::shown::shown(&state), end_position, duration_us }))
}

#[cfg(test)]
mod tests {
    use api_types::EventCategory;

    use super::*;

    #[test]
    fn pages_have_bounds() {
        let read = |after, limit| TimelineQuery { after, limit }.read();
        assert_eq!(read(None, None).unwrap(), (Position::ZERO, 200));
        assert_eq!(read(Some(7), Some(1000)).unwrap(), (Position(7), 1000));
        for (after, limit) in [(None, Some(0)), (None, Some(1001)), (Some(u64::MAX), None)] {
            assert!(read(after, limit).is_err(), "{after:?} {limit:?}");
        }
    }

    #[test]
    fn every_category_is_a_word_of_the_api() {
        for name in EventData::TYPES {
            let (category, _) = name.split_once('.').unwrap();
            assert!(Open::<EventCategory>::read(category).known().is_some(), "{name}");
        }
    }
}
