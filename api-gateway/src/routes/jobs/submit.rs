//! `POST /jobs`

use api_types::{Job, JobRequest};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use events::{EventData, EventId, JobEvent, JobId, JobSecrets, JobState, JobSubmitted};
use feed::{After, Topic};

use super::spec::{self, Plan};
use super::{RECORD_PATIENCE, recorded, shown, wait};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::RawJsonBody;
use crate::gateway::{Gateway, publish_failed};
use crate::idempotency::{IdempotencyKey, Idempotent};

/// What keys are for: the same key of a sandbox stands for something else.
pub(super) const SCOPE: &str = "job";

/// Submits a job. It is durable before the answer, which is the job as it was submitted: the same key has the same answer for
/// ever, whatever became of the job.
#[utoipa::path(
    post,
    path = "/jobs",
    tag = "jobs",
    request_body = JobRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body is the same job")),
    responses(
        (status = 202, description = "The job, as it was submitted", body = Job),
        (status = 400, description = "A field is wrong, or a job that it needs does not exist", body = ErrorBody),
        (status = 404, description = "No such provider, template or sandbox", body = ErrorBody),
        (status = 409, description = "The key was used with another body", body = ErrorBody),
    )
)]
pub(crate) async fn submit(
    State(gateway): State<Gateway>,
    caller: Caller,
    key: IdempotencyKey,
    body: RawJsonBody<JobRequest>,
) -> Result<(StatusCode, Json<Job>), ApiError> {
    if body.value.idempotency_key.is_some() {
        return Err(ApiError::bad_request("idempotency_key is for batches: send it as Idempotency-Key"));
    }
    let idempotent = key.with(&caller.tenant, SCOPE, &body.bytes);
    let state = run(&gateway, &caller, body.value, idempotent).await?;
    Ok((StatusCode::ACCEPTED, Json(shown::submitted(&state))))
}

/// Submits a job, or finds the one that its key stands for.
pub(super) async fn run(
    gateway: &Gateway,
    caller: &Caller,
    request: JobRequest,
    idempotent: Option<Idempotent>,
) -> Result<JobState, ApiError> {
    let id = idempotent.as_ref().map_or_else(JobId::new, |idempotent| JobId::derived(&idempotent.parts()));
    if let Some(idempotent) = &idempotent
        && let Some(known) = recorded(gateway, &caller.tenant, id).await?
    {
        idempotent.check(known.spec.request_digest.as_deref())?;
        return Ok(known);
    }
    let plan = spec::read(gateway, caller, request).await?;
    send(gateway, caller, id, plan, idempotent).await
}

/// Publishes a job and waits until it is recorded.
pub(super) async fn send(
    gateway: &Gateway,
    caller: &Caller,
    id: JobId,
    plan: Plan,
    idempotent: Option<Idempotent>,
) -> Result<JobState, ApiError> {
    let reader = gateway.feed().subscribe(Topic::Job(id), After::Now);
    let digest = idempotent.clone();
    // In a task of its own: a client that goes away must not leave sealed values without their job.
    let published = tokio::spawn(publish(gateway.clone(), caller.clone(), id, plan, idempotent));
    published.await.map_err(ApiError::internal)??;
    let state = wait(gateway, &caller.tenant, id, reader, RECORD_PATIENCE, |_| true).await?;
    let Some(state) = state else {
        return Err(ApiError::unrecorded(format!(
            "the recorder does not follow: the job is submitted, and is found later under its id {id}"
        )));
    };
    // Two bodies may have raced for one key.
    if let Some(idempotent) = digest {
        idempotent.check(state.spec.request_digest.as_deref())?;
    }
    Ok(state)
}

async fn publish(
    gateway: Gateway,
    caller: Caller,
    id: JobId,
    plan: Plan,
    idempotent: Option<Idempotent>,
) -> Result<(), ApiError> {
    let Plan { mut spec, mut secrets, redaction } = plan;
    let event = match &idempotent {
        None => EventId::new(),
        Some(idempotent) => {
            spec.idempotency_key = Some(idempotent.key().to_owned());
            spec.request_digest = Some(idempotent.digest.clone());
            secrets.request_digest = Some(idempotent.digest.clone());
            EventId::derived(&idempotent.parts())
        }
    };
    let owner = caller.user.clone();
    let mut data = JobSubmitted { job: id, owner, spec: Box::new(spec.clone()) }.into();
    redaction.event(&mut data);
    if let EventData::Job(JobEvent::Submitted(said)) = &mut data {
        if *said.spec != spec {
            // What is masked in the log is what the driver has to know.
            secrets.spec = Some(Box::new(spec));
        }
        said.spec.has_sealed = !secrets.is_empty();
        if said.spec.has_sealed {
            keep(&gateway, &caller, id, &secrets).await?;
        }
    }
    gateway.publish_redacted(&caller, None, event, gateway.clock().now(), data, &redaction).await
}

/// Seals what only the driver may know, before the job is there. Whoever submits the same job at the same time with another body is
/// told that here: it must not run with the values of the other one.
async fn keep(gateway: &Gateway, caller: &Caller, id: JobId, secrets: &JobSecrets) -> Result<(), ApiError> {
    let key = &gateway.config().master_key;
    let context = JobSecrets::context(&caller.tenant, id);
    let plain = serde_json::to_vec(secrets).map_err(ApiError::internal)?;
    let sealed = key.seal(JobSecrets::PURPOSE, context.as_bytes(), &plain).map_err(ApiError::internal)?;
    if gateway.log().put_sealed(id, sealed.into()).await.map_err(publish_failed)? {
        return Ok(());
    }
    let there = gateway.log().sealed(id).await.map_err(ApiError::unavailable)?;
    // Destroyed meanwhile: the job has ended, and with it the question.
    let Some(there) = there else { return Ok(()) };
    let opened = key.open(JobSecrets::PURPOSE, context.as_bytes(), &there).ok();
    let opened = opened.and_then(|plain| serde_json::from_slice::<JobSecrets>(&plain).ok());
    match opened {
        Some(opened) if opened.request_digest == secrets.request_digest => Ok(()),
        Some(_) => Err(crate::idempotency::conflict()),
        None => Err(ApiError::conflict("the values of this job were sealed under another master key")),
    }
}
