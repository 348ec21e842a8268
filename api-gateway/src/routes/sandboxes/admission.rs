//! `POST /sandboxes/admission`

use api_types::SpawnRequest;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use spelling::format_go_duration;
use utoipa::ToSchema;

use super::plan::{check_image, check_ttl, plan};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::OptionalJsonBody;
use crate::gateway::Gateway;
use crate::readiness::disk_low_of;

/// Whether a spawn would be let in. Exactly these fields: the SDK takes no other. A maximum of 0 means that there is none.
#[derive(Debug, Serialize, ToSchema)]
pub struct Admission {
    /// Whether it would be.
    pub allowed: bool,
    /// Whether it would wait in a queue instead.
    pub queueable: bool,
    /// Why not: `max_ttl`, `max_sandboxes`, `max_sandboxes_per_owner`, `max_vcpus`, `max_memory`, `worker_unavailable`,
    /// `disk_low`, or what `/ready` says of the transport and the recorder; else empty.
    pub reason: &'static str,
    /// Live sandboxes of the tenant.
    pub active_sandboxes: u64,
    /// How many it may have.
    pub max_sandboxes: u64,
    /// Live sandboxes of the owner.
    pub active_owner_sandboxes: u64,
    /// How many the owner may have.
    pub max_owner_sandboxes: u64,
    /// The greatest time to live, as a Go duration.
    pub max_ttl: String,
}

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
    let served = gateway.view().pool_is_served(&plan.spec.provider);
    let places = gateway.view().places(&plan.spec.provider);
    let reason = if check_ttl(plan.ttl, limits).is_err() {
        "max_ttl"
    } else if let Some(refusal) = gateway
        .readiness()
        .refusal()
        .or_else(|| gateway.readiness().disk_low())
        .or_else(|| disk_low_of(gateway.view(), &plan.spec.provider))
    {
        refusal.code
    } else if let Some(limit) = full.reached {
        limit.admission_reason()
    } else if !served || places == 0 {
        "worker_unavailable"
    } else {
        ""
    };
    Ok(Json(Admission {
        allowed: reason.is_empty(),
        // What may wait for room gets it in its turn.
        queueable: served && places == 0 && reason == "worker_unavailable",
        reason,
        active_sandboxes: full.sandboxes,
        max_sandboxes: full.most,
        active_owner_sandboxes: full.of_owner,
        max_owner_sandboxes: full.most_of_owner,
        max_ttl: format_go_duration(limits.max_ttl),
    }))
}
