//! `GET /quotas/{owner}/usage`

use api_types::QuotaUsage;
use axum::Json;
use axum::extract::{Path, State};
use spelling::format_go_duration;

use crate::auth::{Caller, user_id};
use crate::error::{ApiError, ErrorBody};
use crate::gateway::Gateway;

/// What an owner has, and may have.
#[utoipa::path(
    get,
    path = "/quotas/{owner}/usage",
    tag = "quotas",
    params(("owner" = String, Path, description = "The owner")),
    responses(
        (status = 200, description = "The numbers", body = QuotaUsage),
        (status = 400, description = "It cannot be an owner", body = ErrorBody),
    )
)]
pub(crate) async fn usage(
    State(gateway): State<Gateway>,
    caller: Caller,
    Path(owner): Path<String>,
) -> Result<Json<QuotaUsage>, ApiError> {
    let owner = user_id(&owner, "owner")?.ok_or_else(|| ApiError::bad_request("owner is empty"))?;
    let live = gateway.live_sandboxes(&caller);
    let owned = live.iter().filter(|state| state.spec.owner.as_ref() == Some(&owner));
    Ok(Json(QuotaUsage {
        active_sandboxes: owned.count(),
        max_sandboxes: gateway.config().limits.of(&caller.tenant).sandboxes_per_owner,
        max_ttl: format_go_duration(gateway.config().sandboxes.max_ttl),
        max_exec_timeout: format_go_duration(gateway.config().execs.max_timeout),
        quota_configured: false,
        owner_id: owner,
    }))
}
