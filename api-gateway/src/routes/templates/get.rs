//! `GET /templates/{name}`

use api_types::Template;
use axum::Json;
use axum::extract::State;

use super::{find, shown};
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::TemplatePath;
use crate::gateway::Gateway;

/// One template.
#[utoipa::path(
    get,
    path = "/templates/{name}",
    tag = "templates",
    params(("name" = String, Path, description = "The template")),
    responses(
        (status = 200, description = "The template", body = Template),
        (status = 404, description = "No such template", body = ErrorBody),
    )
)]
pub(crate) async fn get(
    State(gateway): State<Gateway>,
    caller: Caller,
    TemplatePath(name): TemplatePath,
) -> Result<Json<Template>, ApiError> {
    let template = find(&gateway, &caller, &name).await?;
    Ok(Json(shown(template, &gateway, &caller.tenant)))
}
