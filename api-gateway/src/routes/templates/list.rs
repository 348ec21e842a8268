//! `GET /templates`

use api_types::Template;
use axum::Json;
use axum::extract::State;

use super::shown;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::gateway::Gateway;

/// All templates of the tenant, by name, as a bare array.
#[utoipa::path(
    get,
    path = "/templates",
    tag = "templates",
    responses((status = 200, description = "The templates", body = [Template]))
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
) -> Result<Json<Vec<Template>>, ApiError> {
    let templates = gateway.store().templates(&caller.tenant).await.map_err(ApiError::store)?;
    let of = |template| shown(template, &gateway, &caller.tenant);
    Ok(Json(templates.into_iter().map(of).collect()))
}
