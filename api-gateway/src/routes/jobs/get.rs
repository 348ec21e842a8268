//! `GET /jobs/{id}`

use std::time::Duration;

use api_types::Job;
use axum::Json;
use axum::extract::State;
use events::{JobState, Key};
use feed::{After, Topic};
use record::Past;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{find, no_job, shown, spec, wait};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JobPath, QueryOf};
use crate::gateway::Gateway;
use crate::moment::Moment;

/// The longest that a request waits for the end of a job.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(300);

/// When.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct GetQuery {
    /// Answer when the job has ended, or after this time: a Go duration of at most 5m.
    pub wait: Option<String>,
    /// As it was then: after the event of this position, or at this time (RFC 3339). Now, when absent.
    pub at: Option<String>,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// As it is.
    Now,
    /// As it is when it has ended, or after this time.
    Later(Duration),
    /// As it was.
    Then(Moment),
}

impl GetQuery {
    pub(crate) fn read(&self) -> Result<Wanted, ApiError> {
        let longest = spec::length("wait", self.wait.as_deref(), MAX_WAIT)?;
        let at = self.at.as_deref().map(|text| Moment::read(text, "at")).transpose()?;
        match (longest, at) {
            (None, None) => Ok(Wanted::Now),
            (Some(longest), None) => Ok(Wanted::Later(longest)),
            (None, Some(at)) => Ok(Wanted::Then(at)),
            (Some(_), Some(_)) => Err(ApiError::bad_request("wait and at exclude each other")),
        }
    }
}

/// A job. With `wait` the answer comes when it has ended, or when that time is up; with `at` it is as it was then.
#[utoipa::path(
    get,
    path = "/jobs/{id}",
    tag = "jobs",
    params(("id" = String, Path, description = "The job"), GetQuery),
    responses(
        (status = 200, description = "The job", body = Job),
        (status = 400, description = "No length of time, no position and no time", body = ErrorBody),
        (status = 404, description = "No such job, or none yet then", body = ErrorBody),
        (status = 410, description = "What was then is not kept any more", body = ErrorBody),
    )
)]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    JobPath(id): JobPath,
    QueryOf(query): QueryOf<GetQuery>,
) -> Result<Json<Job>, ApiError> {
    let state = match query.read()? {
        Wanted::Now => find(&gateway, &caller, id).await?,
        Wanted::Later(longest) => {
            let reader = gateway.feed().subscribe(Topic::Job(id), After::Now);
            let state = find(&gateway, &caller, id).await?;
            let waited = wait(&gateway, &caller.tenant, id, reader, longest, JobState::has_ended).await?;
            waited.unwrap_or(state)
        }
        Wanted::Then(moment) => {
            find(&gateway, &caller, id).await?;
            let last = moment.last(&gateway).await?;
            let key = Key::from(id);
            let past = Past::<JobState>::one(gateway.store(), &caller.tenant, &key, last);
            let past = past.await.map_err(ApiError::store)?.ok_or_else(|| no_job(id))?;
            return Ok(Json(shown::shown(&past.state)));
        }
    };
    shown::whole(&gateway, &state).await.map(Json)
}
