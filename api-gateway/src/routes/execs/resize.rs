//! `POST /execs/{id}/resize`

use api_types::{Reply, ResizeRequest};
use axum::Json;
use axum::extract::State;
use transport::LinkOp;

use super::running;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::exec::request::terminal;
use crate::extract::{ExecPath, JsonBody};
use crate::gateway::Gateway;
use crate::routes::done;

/// Gives the terminal of a running exec another size. The program is told (SIGWINCH), and so is everybody who is attached.
#[utoipa::path(
    post,
    path = "/execs/{id}/resize",
    tag = "execs",
    params(("id" = String, Path, description = "The exec")),
    request_body = ResizeRequest,
    responses(
        (status = 200, description = "It has the new size", body = Reply),
        (status = 400, description = "No size, or no terminal", body = ErrorBody),
        (status = 404, description = "No such exec", body = ErrorBody),
        (status = 409, description = "It has not begun, or has ended", body = ErrorBody),
    )
)]
pub(crate) async fn resize(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    JsonBody(request): JsonBody<ResizeRequest>,
) -> Result<Json<Reply>, ApiError> {
    let state = running(&gateway, &caller, id).await?;
    let (Some(rows), Some(cols)) = (request.rows, request.cols) else {
        return Err(ApiError::bad_request("rows and cols are needed"));
    };
    let size = terminal(rows, cols)?;
    if state.spec.as_ref().is_some_and(|spec| spec.tty.is_none()) {
        return Err(ApiError::bad_request("the exec has no terminal"));
    }
    gateway.call(&caller, state.sandbox, LinkOp::Resize { exec: id, size }).await?;
    Ok(done("resized"))
}
