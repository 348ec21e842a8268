//! `POST /sandboxes/{id}/extend`

use std::time::Duration;

use api_types::{ExtendRequest, Sandbox};
use axum::Json;
use axum::extract::State;
use chrono::SubsecRound;
use events::{Command, CommandId, SandboxState};
use transport::Destination;

use super::plan::{check_ttl, ttl};
use super::shown;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JsonBody, SandboxPath};
use crate::gateway::{Gateway, ended};

const PATIENCE: Duration = Duration::from_secs(20);

/// Moves the deadline of a sandbox: to now plus `ttl`, but never past its greatest lifetime.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/extend",
    tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    request_body = ExtendRequest,
    responses(
        (status = 200, description = "The sandbox with its new deadline", body = Sandbox),
        (status = 400, description = "The ttl is missing, no Go duration, or over the maximum", body = ErrorBody),
        (status = 404, description = "No such sandbox", body = ErrorBody),
    )
)]
pub(crate) async fn extend(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    JsonBody(request): JsonBody<ExtendRequest>,
) -> Result<Json<Sandbox>, ApiError> {
    let text =
        request.ttl.filter(|text| !text.is_empty()).ok_or_else(|| ApiError::bad_request("ttl is missing"))?;
    let ttl = ttl(&text)?;
    check_ttl(ttl, &gateway.config().sandboxes)?;
    let (state, node) = gateway.placed_sandbox(&caller, id).await?;
    let expires_at = (gateway.clock().now() + ttl).trunc_subsecs(6).min(state.lifetime_ends_at);
    let extend = Command::ExtendTtl { expires_at };
    gateway.send(Destination::Node(&node), &caller, id, CommandId::new(), extend).await?;
    let before = state.expires_at;
    // Another extension may overtake this one: any move of the deadline is an answer.
    let moved = |state: &SandboxState| {
        state.expires_at == expires_at || state.expires_at != before || state.is_terminal()
    };
    let state = gateway
        .view()
        .wait(id, moved, PATIENCE)
        .await
        .ok_or_else(|| ApiError::unavailable("the node does not extend: it has not answered in time"))?;
    if state.is_terminal() {
        return Err(ended(&state, gateway.clock().now()));
    }
    Ok(Json(shown(&state, &gateway)))
}
