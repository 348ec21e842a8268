//! `DELETE /sandboxes/{id}`

use std::time::Duration;

use api_types::Reply;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use events::{Command, CommandId, DestroyReason, SandboxState};
use transport::Destination;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::SandboxPath;
use crate::gateway::{Gateway, ended};
use crate::leniency::Leniency;
use crate::routes::done;

/// Destroys a sandbox with all that is in it, and answers when it is gone. One that is gone already is a success too; with
/// `Prefer: handling=strict` it is 404.
#[utoipa::path(
    delete,
    path = "/sandboxes/{id}",
    tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox")),
    responses(
        (status = 200, description = "It is gone", body = Reply),
        (status = 202, description = "It will be gone: its node is slow or away", body = Reply),
        (status = 404, description = "There never was such a sandbox; or it is gone, and `Prefer: handling=strict`", body = ErrorBody),
    )
)]
pub(crate) async fn destroy(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
    leniency: Leniency,
) -> Result<(StatusCode, Json<Reply>), ApiError> {
    let state = gateway.any_sandbox(&caller, &caller.tenant, id).await?;
    if state.is_terminal() {
        // It is gone already, or could not be made: there is nothing to destroy.
        return if leniency.is_lenient() {
            Ok((StatusCode::OK, done("destroyed")))
        } else {
            Err(ended(&state, gateway.clock().now()))
        };
    }
    if ask_and_wait(&gateway, &caller, &state, DestroyReason::User, gateway.config().destroy_wait).await? {
        Ok((StatusCode::OK, done("destroyed")))
    } else {
        Ok((StatusCode::ACCEPTED, done("destroying")))
    }
}

/// Asks the node that has it to destroy it, and waits until the log says so. False: not yet.
pub(crate) async fn ask_and_wait(
    gateway: &Gateway,
    caller: &Caller,
    state: &SandboxState,
    reason: DestroyReason,
    patience: Duration,
) -> Result<bool, ApiError> {
    let id = state.id;
    let placed = |state: &SandboxState| state.node().is_some() || state.is_terminal();
    let state = match gateway.view().wait(id, placed, patience).await {
        Some(state) => state,
        // Nobody has taken it, so nobody can be asked; its deadline will end it.
        None => return Err(ApiError::conflict(format!("sandbox {id} is not placed yet: try again"))),
    };
    let Some(node) = state.node() else { return Ok(true) };
    let destroy = Command::DestroySandbox { reason };
    gateway.send(Destination::Node(node), caller, id, CommandId::new(), destroy).await?;
    tokio::select! {
        ended = gateway.view().wait(id, SandboxState::is_terminal, patience) => Ok(ended.is_some()),
        // It is asked for, and done when that can be written down.
        () = gateway.readiness().hopeless() => Ok(false),
    }
}
