//! `DELETE /templates/{name}`

use api_types::Reply;
use axum::Json;
use axum::extract::State;
use events::{EventId, TemplateDeleted};
use feed::{After, Topic};

use super::{find, recorded};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::TemplatePath;
use crate::gateway::Gateway;
use crate::routes::done;

/// Deletes a template. Sandboxes that were made from it live on.
#[utoipa::path(
    delete,
    path = "/templates/{name}",
    tag = "templates",
    params(("name" = String, Path, description = "The template")),
    responses(
        (status = 200, description = "It is deleted", body = Reply),
        (status = 404, description = "No such template", body = ErrorBody),
    )
)]
pub(crate) async fn delete(
    State(gateway): State<Gateway>,
    caller: Caller,
    TemplatePath(name): TemplatePath,
) -> Result<Json<Reply>, ApiError> {
    find(&gateway, &caller, &name).await?;
    let id = EventId::new();
    let reader = gateway.feed().subscribe(Topic::All, After::Now);
    gateway.publish(&caller, None, id, gateway.clock().now(), TemplateDeleted { name }).await?;
    recorded(reader, id).await?;
    Ok(done("deleted"))
}
