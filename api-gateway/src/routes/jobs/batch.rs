//! `POST /jobs/batch`

use std::collections::HashMap;

use api_types::{BatchAnswer, BatchEntry, BatchRequest, JobRequest};
use axum::Json;
use axum::extract::State;
use bytes::Bytes;
use events::JobId;
use futures::stream::{FuturesOrdered, StreamExt as _};
use serde_json::Value;

use super::submit::{self, SCOPE};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody, status};
use crate::extract::LargeRawJsonBody;
use crate::gateway::Gateway;
use crate::idempotency::{self, IdempotencyKey, Idempotent};

/// How many a batch has at most, and how many of them are under way at once.
pub(crate) const MAX_JOBS: usize = 1000;
const AT_ONCE: usize = 16;

/// Submits many jobs. Each is a job of its own, with its own `idempotency_key` and its own answer, in the order of the request: some may
/// be refused and others not. A job may need another one of the batch by its `idempotency_key`, if that stands before it: so none
/// can need each other.
#[utoipa::path(
    post,
    path = "/jobs/batch",
    tag = "jobs",
    request_body = BatchRequest,
    responses(
        (status = 200, description = "What became of each", body = BatchAnswer),
        (status = 400, description = "No jobs, or more than 1000", body = ErrorBody),
    )
)]
pub(crate) async fn batch(
    State(gateway): State<Gateway>,
    caller: Caller,
    body: LargeRawJsonBody<BatchRequest>,
) -> Result<Json<BatchAnswer>, ApiError> {
    let jobs = body.value.jobs.unwrap_or_default();
    if jobs.is_empty() || jobs.len() > MAX_JOBS {
        return Err(ApiError::bad_request(format!("jobs must be 1 to {MAX_JOBS} jobs")));
    }
    let raw: Value = serde_json::from_slice(&body.bytes).map_err(ApiError::internal)?;
    let raw = raw.get("jobs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut before: HashMap<String, JobId> = HashMap::new();
    let (mut answers, mut under_way) = (Vec::with_capacity(jobs.len()), FuturesOrdered::new());
    for (mut job, raw) in jobs.into_iter().zip(raw) {
        let key = job.idempotency_key.take().filter(|key| !key.is_empty());
        let idempotent = match key.as_deref().map(|key| keyed(&gateway, &caller, key, raw)).transpose() {
            Ok(idempotent) => idempotent.flatten(),
            Err(error) => {
                under_way.push_back(futures::future::Either::Left(std::future::ready(Err(error))));
                continue;
            }
        };
        if named(&mut job, &before) || under_way.len() >= AT_ONCE {
            // What it needs has to be there before it.
            while let Some(answer) = under_way.next().await {
                answers.push(entry(answer));
            }
        }
        if let (Some(key), Some(idempotent)) = (key, &idempotent) {
            before.insert(key, JobId::derived(&idempotent.parts()));
        }
        let (gateway, caller) = (&gateway, &caller);
        under_way.push_back(futures::future::Either::Right(async move {
            submit::run(gateway, caller, job, idempotent).await.map(|state| state.id)
        }));
    }
    while let Some(answer) = under_way.next().await {
        answers.push(entry(answer));
    }
    Ok(Json(BatchAnswer { jobs: answers }))
}

/// What the key of a job stands for. The key itself is no part of what it asks for.
fn keyed(gateway: &Gateway, caller: &Caller, key: &str, raw: &Value) -> Result<Option<Idempotent>, ApiError> {
    let key = IdempotencyKey::of(idempotency::parse(key.as_bytes())?, &gateway.config().master_key);
    let mut raw = raw.clone();
    if let Value::Object(fields) = &mut raw {
        fields.remove("idempotency_key");
    }
    let body = serde_json::to_vec(&raw).map_err(ApiError::internal)?;
    Ok(key.with(&caller.tenant, SCOPE, &Bytes::from(body)))
}

/// Puts ids in the place of keys of jobs before this one. Whether there were any.
fn named(job: &mut JobRequest, before: &HashMap<String, JobId>) -> bool {
    let mut any = false;
    for need in job.needs.iter_mut().flatten() {
        if let Some(id) = need.job.as_ref().and_then(|key| before.get(key)) {
            need.job = Some(id.to_string());
            any = true;
        }
    }
    any
}

fn entry(answer: Result<JobId, ApiError>) -> BatchEntry {
    match answer {
        Ok(id) => BatchEntry { status: 202, id: Some(id.to_string()), code: None, message: None },
        Err(error) => {
            let body = error.into_body();
            let status = body.code.known().map_or(500, |code| status(code).as_u16());
            BatchEntry { status, id: None, code: Some(body.code), message: Some(body.message.into()) }
        }
    }
}
