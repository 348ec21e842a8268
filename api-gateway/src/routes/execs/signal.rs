//! `POST /execs/{id}/signal`

use api_types::{Reply, SignalRequest};
use axum::Json;
use axum::extract::State;
use transport::LinkOp;

use super::running;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::signal::number;
use crate::extract::{ExecPath, JsonBody};
use crate::gateway::Gateway;
use crate::routes::done;

/// Sends a signal to the process group of a running exec.
#[utoipa::path(
    post,
    path = "/execs/{id}/signal",
    tag = "execs",
    params(("id" = String, Path, description = "The exec")),
    request_body = SignalRequest,
    responses(
        (status = 200, description = "It was sent", body = Reply),
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
) -> Result<Json<Reply>, ApiError> {
    let signal = request.signal.ok_or_else(|| ApiError::bad_request("signal is missing"))?;
    let signal = number(&signal)?;
    let state = running(&gateway, &caller, id).await?;
    gateway.call(&caller, state.sandbox, LinkOp::Signal { exec: id, signal }).await?;
    Ok(done("signalled"))
}
