//! `POST /sandboxes/admission`

use api_types::{Admission, AdmissionReason, Open, SpawnRequest};
use axum::Json;
use axum::extract::State;
use spelling::format_go_duration;

use super::plan::{check_image, check_ttl, plan};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::OptionalJsonBody;
use crate::gateway::Gateway;
use crate::readiness::disk_low_of;

/// Asks whether a spawn would be let in, and makes nothing.
#[utoipa::path(
    post,
    path = "/sandboxes/admission",
    tag = "sandboxes",
    request_body = SpawnRequest,
    responses(
        (status = 200, description = "The decision", body = Admission),
        (status = 400, description = "A field is wrong", body = ErrorBody),
        (status = 404, description = "No such provider", body = ErrorBody),
    )
)]
pub(crate) async fn admission(
    State(gateway): State<Gateway>,
    caller: Caller,
    body: OptionalJsonBody<SpawnRequest>,
) -> Result<Json<Admission>, ApiError> {
    let limits = &gateway.config().sandboxes;
    let plan = plan(body.value, None, caller.user.as_deref(), limits)?;
    check_image(&caller.tenant, &plan.spec.image, limits)?;
    let full = gateway.shares().fullness(gateway.view(), &caller.tenant, &plan.spec);
    let served = gateway.view().pool_is_served(&plan.spec.provider, &plan.spec.pool());
    let places = gateway.view().places(&plan.spec.provider, &plan.spec.pool());
    let reason: Open<AdmissionReason> = if check_ttl(plan.ttl, limits).is_err() {
        AdmissionReason::MaxTtl.into()
    } else if let Some(refusal) = gateway
        .readiness()
        .refusal()
        .or_else(|| gateway.readiness().disk_low())
        .or_else(|| disk_low_of(gateway.view(), &plan.spec.provider))
    {
        Open::read(refusal.code.as_str())
    } else if let Some(limit) = full.reached {
        limit.admission_reason().into()
    } else if !served || places == 0 {
        AdmissionReason::WorkerUnavailable.into()
    } else {
        AdmissionReason::None.into()
    };
    Ok(Json(Admission {
        allowed: reason == AdmissionReason::None,
        // What may wait for room gets it in its turn.
        queueable: served && places == 0 && reason == AdmissionReason::WorkerUnavailable,
        reason,
        active_sandboxes: full.sandboxes,
        max_sandboxes: full.most,
        active_owner_sandboxes: full.of_owner,
        max_owner_sandboxes: full.most_of_owner,
        max_ttl: format_go_duration(limits.max_ttl),
    }))
}
