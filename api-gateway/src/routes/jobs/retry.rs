//! `POST /jobs/{id}/retry`

use api_types::Job;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use events::{JobPlace, JobSecrets};

use super::spec::Plan;
use super::{find, recorded, shown, submit};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::JobPath;
use crate::gateway::Gateway;
use crate::routes::sandboxes::plan::check_image;

/// Submits the same job once more: `retry_of` of the new one and `retried_by` of the old one name each other. A job is repeated
/// once: asked for again, the answer is the same new job, which can be repeated in turn. One that was given variables or a callback
/// with values cannot be: those were destroyed when it ended.
#[utoipa::path(
    post,
    path = "/jobs/{id}/retry",
    tag = "jobs",
    params(("id" = String, Path, description = "The job, which has ended")),
    responses(
        (status = 202, description = "The new job, as it was submitted", body = Job),
        (status = 404, description = "No such job", body = ErrorBody),
        (status = 409, description = "It has not ended, or its values are destroyed: submit it anew with them", body = ErrorBody),
    )
)]
pub(crate) async fn retry(
    State(gateway): State<Gateway>,
    caller: Caller,
    JobPath(id): JobPath,
) -> Result<(StatusCode, Json<Job>), ApiError> {
    let state = find(&gateway, &caller, id).await?;
    let new = shown::retry_of(id);
    if let Some(known) = recorded(&gateway, &caller.tenant, new).await? {
        return Ok((StatusCode::ACCEPTED, Json(shown::submitted(&known))));
    }
    if !state.has_ended() {
        return Err(ApiError::conflict("the job has not ended"));
    }
    if state.spec.has_sealed {
        return Err(ApiError::conflict(
            "the values that only this job knew (of variables, secrets, its callback) were destroyed when it ended: submit it anew with them",
        ));
    }
    let mut spec = *state.spec;
    if let JobPlace::Fresh(sandbox) = &spec.place {
        check_image(&caller.tenant, &sandbox.image, &gateway.config().sandboxes)?;
    }
    (spec.retry_of, spec.run_at) = (Some(id), None);
    (spec.idempotency_key, spec.request_digest) = (None, None);
    let plan = Plan { spec, secrets: JobSecrets::default(), redaction: gateway.redaction() };
    let submitted = submit::send(&gateway, &caller, new, plan, None).await?;
    Ok((StatusCode::ACCEPTED, Json(shown::submitted(&submitted))))
}
