//! `GET /jobs`

use api_types::{JobList, JobState as Word, Word as _};
use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use events::{JobId, JobState, Key, searchable};
use record::{Order, RowQuery};
use serde::Deserialize;
use utoipa::IntoParams;

use super::submit::SCOPE;
use super::{recorded, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{QueryOf, whole};
use crate::gateway::Gateway;
use crate::idempotency::{self, IdempotencyKey};

/// How many a page has at most, and where the request does not say.
pub(crate) const MAX_LIMIT: u32 = 1000;
const DEFAULT_LIMIT: u32 = 100;
/// How many are looked at for one page, and how many at once.
const MOST_LOOKED_AT: usize = 5_000;
const ROWS: u32 = 200;

/// Which of them.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only those that stand there, or ended so.
    pub state: Option<String>,
    /// Only those with this label: `name=value`.
    pub label: Option<String>,
    /// Only those of this queue.
    pub queue: Option<String>,
    /// Only those that need this job.
    pub needs: Option<String>,
    /// Only those that this schedule submitted: its id.
    pub schedule: Option<String>,
    /// Only those that were submitted after this time (RFC 3339).
    pub created_after: Option<String>,
    /// Only the one that was submitted with this `Idempotency-Key`.
    pub idempotency_key: Option<String>,
    /// Those after this job: the `next_after` of the page before.
    pub after: Option<String>,
    /// At most so many: 1 to 1000, 100 by default.
    pub limit: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    state: Option<&'static str>,
    label: Option<(String, String)>,
    queue: Option<String>,
    needs: Option<JobId>,
    schedule: Option<String>,
    created_after: Option<DateTime<Utc>>,
    idempotency_key: Option<String>,
    after: Option<JobId>,
    limit: u32,
}

impl ListQuery {
    pub(crate) fn read(&self) -> Result<Wanted, ApiError> {
        let job = |text: &Option<String>, name: &str| {
            let read = |text: &String| {
                text.parse().map_err(|_| ApiError::bad_request(format!("{name} must be the id of a job")))
            };
            text.as_ref().map(read).transpose()
        };
        let limit = match self.limit.as_deref() {
            None => Some(DEFAULT_LIMIT),
            Some(text) => whole(text).filter(|limit| (1..=MAX_LIMIT).contains(limit)),
        };
        Ok(Wanted {
            state: self.state.as_deref().map(state).transpose()?,
            label: self.label.as_deref().map(label).transpose()?,
            queue: self.queue.clone().map(|name| super::spec::queue(Some(name))).transpose()?,
            needs: job(&self.needs, "needs")?,
            schedule: self.schedule.clone(),
            created_after: self.created_after.as_deref().map(time).transpose()?,
            idempotency_key: self
                .idempotency_key
                .as_ref()
                .map(|key| idempotency::parse(key.as_bytes()))
                .transpose()?,
            after: job(&self.after, "after")?,
            limit: limit.ok_or_else(|| ApiError::bad_request(format!("limit must be 1 to {MAX_LIMIT}")))?,
        })
    }
}

fn state(text: &str) -> Result<&'static str, ApiError> {
    let known = Word::ALL.iter().find(|word| word.as_str() == text);
    known.map(|word| word.as_str()).ok_or_else(|| {
        let all: Vec<&str> = Word::ALL.iter().map(|word| word.as_str()).collect();
        ApiError::bad_request(format!("state must be one of {}", all.join(", ")))
    })
}

fn label(text: &str) -> Result<(String, String), ApiError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err(ApiError::bad_request("label must be name=value")),
    }
}

fn time(text: &str) -> Result<DateTime<Utc>, ApiError> {
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.with_timezone(&Utc))
        .map_err(|_| ApiError::bad_request("created_after must be an RFC 3339 time"))
}

impl Wanted {
    /// The rows that it looks through, after one of them.
    fn rows(&self, caller: &Caller, after: Option<Key>) -> RowQuery {
        RowQuery {
            tenant: Some(caller.tenant.clone()),
            // Two steps of the log stand behind one word of the API.
            status: self.state.filter(|state| *state != "running"),
            label: self.schedule.as_deref().map(searchable),
            order: Order::Key(after),
            limit: Some(ROWS),
            ..RowQuery::default()
        }
    }

    fn has(&self, job: &JobState) -> bool {
        let spec = &job.spec;
        self.state.is_none_or(|state| job.phase.as_str() == state)
            && self.label.as_ref().is_none_or(|(name, value)| spec.labels.get(name) == Some(value))
            && self.queue.as_ref().is_none_or(|queue| spec.queue == *queue)
            && self.needs.is_none_or(|needed| spec.needs.iter().any(|need| need.job == needed))
            && self.schedule.as_ref().is_none_or(|schedule| spec.schedule.as_ref() == Some(schedule))
            && self.created_after.is_none_or(|after| job.submitted_at > after)
            && self.after.is_none_or(|after| job.id > after)
    }
}

/// Jobs of the tenant, in the order of their ids: pages are stable, whatever is submitted or ends in between. A page may have fewer
/// than `limit`, or none, and a `next_after` all the same: where few of many fit, no request looks through all of them.
#[utoipa::path(
    get,
    path = "/jobs",
    tag = "jobs",
    params(ListQuery),
    responses(
        (status = 200, description = "The jobs", body = JobList),
        (status = 400, description = "A filter that is none, or no page", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    QueryOf(query): QueryOf<ListQuery>,
) -> Result<Json<JobList>, ApiError> {
    let wanted = query.read()?;
    let now = gateway.clock().now();
    if let Some(key) = &wanted.idempotency_key {
        let key = IdempotencyKey::of(key.clone(), &gateway.config().master_key);
        let id = key.with(&caller.tenant, SCOPE, &bytes::Bytes::new()).map(|it| JobId::derived(&it.parts()));
        let found = match id {
            Some(id) => recorded(&gateway, &caller.tenant, id).await?,
            None => None,
        };
        let jobs = found.iter().filter(|job| wanted.has(job)).map(shown::shown).collect();
        return Ok(Json(JobList { jobs, next_after: None }));
    }
    let limit = wanted.limit as usize;
    let (mut jobs, mut looked_at) = (Vec::new(), 0);
    let mut after = wanted.after;
    loop {
        let rows = wanted.rows(&caller, after.map(Key::from));
        let rows = gateway.store().list::<JobState>(rows).await.map_err(ApiError::store)?;
        let is_last = rows.len() < ROWS as usize;
        looked_at += rows.len();
        for job in &rows {
            after = Some(job.id);
            if wanted.has(job) && is_listed(job, now) {
                jobs.push(shown::shown(job));
                if jobs.len() == limit {
                    break;
                }
            }
        }
        let at_end = is_last && rows.last().is_none_or(|last| Some(last.id) == after);
        if at_end {
            return Ok(Json(JobList { jobs, next_after: None }));
        }
        if jobs.len() == limit || looked_at >= MOST_LOOKED_AT {
            return Ok(Json(JobList { jobs, next_after: after.map(|id| id.to_string()) }));
        }
    }
}

/// Whether it is still listed: for as long after its end as it was to be.
fn is_listed(job: &JobState, now: DateTime<Utc>) -> bool {
    let ttl = job.spec.ttl_after_end_ms.and_then(|ttl| i64::try_from(ttl).ok());
    let until = job
        .ended_at()
        .zip(ttl.and_then(chrono::TimeDelta::try_milliseconds))
        .and_then(|(ended, ttl)| ended.checked_add_signed(ttl));
    until.is_none_or(|until| now < until)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_and_no_page_is_refused() {
        let some = |text: &str| Some(text.to_owned());
        for query in [
            ListQuery { limit: some("0"), ..ListQuery::default() },
            ListQuery { limit: some("1001"), ..ListQuery::default() },
            ListQuery { state: some("done"), ..ListQuery::default() },
            ListQuery { state: some(""), ..ListQuery::default() },
            ListQuery { label: some("name"), ..ListQuery::default() },
            ListQuery { label: some("=x"), ..ListQuery::default() },
            ListQuery { queue: some("a b"), ..ListQuery::default() },
            ListQuery { needs: some("sb-1"), ..ListQuery::default() },
            ListQuery { created_after: some("yesterday"), ..ListQuery::default() },
            ListQuery { idempotency_key: some("a b"), ..ListQuery::default() },
            ListQuery { after: some("1"), ..ListQuery::default() },
        ] {
            assert!(query.read().is_err(), "{query:?}");
        }
        assert_eq!(ListQuery::default().read().unwrap(), Wanted { limit: 100, ..Wanted::default() });
    }
}
