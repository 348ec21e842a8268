//! `POST /execs/{id}/signal`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use transport::LinkOp;
use utoipa::ToSchema;

use super::running;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::signal::SignalName;
use crate::extract::{ExecPath, JsonBody};
use crate::gateway::Gateway;
use crate::routes::Status;

/// Which signal.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct SignalRequest {
    /// A name with or without SIG (`SIGTERM`, `KILL`), or a number.
    #[schema(value_type = String, required, example = "SIGINT")]
    pub signal: Option<SignalName>,
}

/// Sends a signal to the process group of a running exec.
#[utoipa::path(
    post,
    path = "/execs/{id}/signal",
    tag = "execs",
    params(("id" = String, Path, description = "The exec")),
    request_body = SignalRequest,
    responses(
        (status = 200, description = "It was sent", body = Status),
        (status = 400, description = "No such signal", body = ErrorBody),
        (status = 404, description = "No such exec", body = ErrorBody),
        (status = 409, description = "It has not begun, or has ended", body = ErrorBody),
    )
)]
pub(crate) async fn signal(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    JsonBody(request): JsonBody<SignalRequest>,
) -> Result<Json<Status>, ApiError> {
    let signal = request.signal.ok_or_else(|| ApiError::bad_request("signal is missing"))?.number()?;
    let state = running(&gateway, &caller, id).await?;
    gateway.call(&caller, state.sandbox, LinkOp::Signal { exec: id, signal }).await?;
    Ok(Status::json("signalled"))
}
