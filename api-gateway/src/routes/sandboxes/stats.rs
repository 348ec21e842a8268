//! `GET /sandboxes/{id}/stats`

use api_types::SandboxStats;
use axum::Json;
use axum::extract::State;
use transport::{FaultCode, LinkOp, LinkValue};

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::SandboxPath;
use crate::gateway::{Gateway, link_failed, unexpected_answer};

/// What a sandbox uses right now.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/stats",
    tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The numbers, or that there are none", body = SandboxStats),
        (status = 404, description = "No such sandbox", body = ErrorBody),
    )
)]
pub(crate) async fn stats(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
) -> Result<Json<SandboxStats>, ApiError> {
    match gateway.try_call(&caller, id, LinkOp::Stats).await? {
        Ok(LinkValue::Stats(stats)) => Ok(Json(SandboxStats {
            supported: true,
            cpu_pct: Some(stats.cpu_percent),
            mem_bytes: Some(stats.memory_bytes),
            mem_limit_bytes: Some(stats.memory_limit_bytes),
        })),
        Err(transport::LinkError::Refused(fault)) if fault.code == FaultCode::Unsupported => {
            Ok(Json(SandboxStats::default()))
        }
        Err(error) => Err(link_failed(error)),
        Ok(LinkValue::Done | LinkValue::File(_) | LinkValue::StillWanted) => Err(unexpected_answer()),
    }
}
