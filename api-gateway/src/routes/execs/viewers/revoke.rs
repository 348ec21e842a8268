//! `DELETE /execs/{id}/viewers/{viewer}`

use api_types::Reply;
use axum::Json;
use axum::extract::{Path, State};
use events::{AccessRevoked, ApiKeyId, EventId, ExecId};

use super::shown;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::gateway::Gateway;
use crate::routes::done;
use crate::routes::execs::find;

/// Makes a link good for nothing, at every gateway, and ends what is open by it. The log says who did.
#[utoipa::path(
    delete,
    path = "/execs/{id}/viewers/{viewer}",
    tag = "execs",
    params(
        ("id" = String, Path, description = "The exec"),
        ("viewer" = String, Path, description = "The id of the link"),
    ),
    responses(
        (status = 200, description = "It is revoked, and the log says so", body = Reply),
        (status = 404, description = "No such exec, or no such link that is good", body = ErrorBody),
    )
)]
pub(crate) async fn revoke(
    State(gateway): State<Gateway>,
    caller: Caller,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Result<Json<Reply>, ApiError> {
    // What cannot be read is the name of nothing.
    let (exec, viewer) = path.map_or_else(|_| Default::default(), |Path(both)| both);
    let exec: ExecId = exec.parse().map_err(|_| ApiError::absent("exec", exec))?;
    tracing::Span::current().record("exec.id", tracing::field::display(exec));
    let state = find(&gateway, &caller, exec).await?;
    let now = gateway.clock().now();
    let missing = || ApiError::absent("viewer link", &viewer);
    let id: ApiKeyId = viewer.parse().map_err(|_| missing())?;
    let is_there = gateway.view().links(|links| {
        links
            .get(&id)
            .is_some_and(|link| link.tenant == caller.tenant && link.exec == exec && link.expires_at > now)
    });
    if !is_there {
        return Err(missing());
    }
    let revoked = AccessRevoked { exec, viewer: id.clone() };
    gateway.publish(&caller, Some(state.sandbox), EventId::new(), now, revoked).await?;
    shown(&gateway, &id, |link| link.is_none()).await?;
    Ok(done("revoked"))
}
