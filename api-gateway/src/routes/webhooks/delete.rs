//! `DELETE /webhooks/{id}`

use api_types::Reply;
use axum::Json;
use axum::extract::State;
use events::{EventId, WebhookDeleted};

use super::{find, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::WebhookPath;
use crate::gateway::Gateway;
use crate::routes::done;

/// Deletes a webhook. A request that is under way may still arrive.
#[utoipa::path(
    delete,
    path = "/webhooks/{id}",
    tag = "webhooks",
    params(("id" = String, Path, description = "The webhook")),
    responses(
        (status = 200, description = "It is deleted", body = Reply),
        (status = 404, description = "No such webhook", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    caller: Caller,
    WebhookPath(id): WebhookPath,
) -> Result<Json<Reply>, ApiError> {
    find(&gateway, &caller, id)?;
    let deleted = WebhookDeleted { webhook: id };
    gateway.publish(&caller, None, EventId::new(), gateway.clock().now(), deleted).await?;
    shown(&gateway, &caller.tenant, id, |state| state.is_none()).await?;
    Ok(done("deleted"))
}
