//! `POST /sandboxes/{id}/erase`

use api_types::Reply;
use axum::Json;
use axum::extract::State;
use events::{EventId, SandboxErased};
use feed::{After, Topic};
use record::Protection;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::SandboxPath;
use crate::gateway::Gateway;
use crate::routes::done;
use crate::routes::templates::recorded;

/// Erases what a sandbox wrote and read: destroys the key that its output and input are kept under. Its events stay, and
/// the chain of hashes still verifies. Also of a sandbox that is gone; a second time changes nothing.
#[utoipa::path(
    post,
    path = "/sandboxes/{id}/erase",
    tag = "sandboxes",
    params(("id" = String, Path, description = "The sandbox, destroyed or not")),
    responses(
        (status = 200, description = "The key is destroyed, and the log says so", body = Reply),
        (status = 404, description = "No such sandbox", body = ErrorBody),
        (status = 409, description = "Its output, or some of it, is not kept under a key", body = ErrorBody),
    )
)]
pub(crate) async fn erase(
    State(gateway): State<Gateway>,
    caller: Caller,
    SandboxPath(id): SandboxPath,
) -> Result<Json<Reply>, ApiError> {
    // The read model: also of what was destroyed.
    gateway.recorded_sandbox(&caller, id).await?;
    match gateway.record().keys.protection(id).await.map_err(ApiError::store)? {
        Protection::Erased => return Ok(done("erased")),
        Protection::Sealed => {}
        Protection::None => {
            return Err(ApiError::conflict(
                "nothing of this sandbox is kept under a key: encryption was off, or it has written nothing",
            ));
        }
        Protection::Partial => {
            return Err(ApiError::conflict(
                "some of the output of this sandbox is from before encryption was on: only retention can remove it",
            ));
        }
    }
    let event = EventId::new();
    let reader = gateway.feed().subscribe(Topic::Sandbox(id), After::Now);
    gateway.publish(&caller, Some(id), event, gateway.clock().now(), SandboxErased {}).await?;
    recorded(reader, event).await?;
    Ok(done("erased"))
}
