//! `GET /sandboxes/{id}/stats`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use transport::{FaultCode, LinkOp, LinkValue};
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::SandboxPath;
use crate::gateway::{Gateway, link_failed, unexpected_answer};

/// What a sandbox uses.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Stats {
    /// Whether the provider can tell.
    pub supported: bool,
    /// CPU time of the last moment, in percent of one CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<f64>,
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bytes: Option<u64>,
    /// The memory limit, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_limit_bytes: Option<u64>,
}

/// What a sandbox uses right now.
#[utoipa::path(
    get,
    path = "/sandboxes/{id}/stats",
    tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "The numbers, or that there are none", body = Stats),
        (status = 404, description = "No such sandbox", body = ErrorBody),
    )
)]
pub(crate) async fn stats(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
) -> Result<Json<Stats>, ApiError> {
    match gateway.try_call(&caller, id, LinkOp::Stats).await? {
        Ok(LinkValue::Stats(stats)) => Ok(Json(Stats {
            supported: true,
            cpu_pct: Some(stats.cpu_percent),
            mem_bytes: Some(stats.memory_bytes),
            mem_limit_bytes: Some(stats.memory_limit_bytes),
        })),
        Err(transport::LinkError::Refused(fault)) if fault.code == FaultCode::Unsupported => {
            Ok(Json(Stats::default()))
        }
        Err(error) => Err(link_failed(error)),
        Ok(LinkValue::Done | LinkValue::File(_) | LinkValue::StillWanted) => Err(unexpected_answer()),
    }
}
