//! `PUT /templates/{name}`

use api_types::{Template, TemplateRequest};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::save::put;
use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{JsonBody, TemplatePath};
use crate::gateway::Gateway;

/// Replaces a template whole, or makes it. `name` in the body may be left out.
#[utoipa::path(
    put,
    path = "/templates/{name}",
    tag = "templates",
    params(("name" = String, Path, description = "The template")),
    request_body = TemplateRequest,
    responses(
        (status = 200, description = "It is replaced", body = Template),
        (status = 201, description = "It is made", body = Template),
        (status = 400, description = "A field is wrong, or the body names another template", body = ErrorBody),
        (status = 404, description = "No such provider", body = ErrorBody),
    )
)]
pub(crate) async fn replace(
    State(gateway): State<Gateway>,
    caller: Caller,
    TemplatePath(name): TemplatePath,
    JsonBody(mut request): JsonBody<TemplateRequest>,
) -> Result<(StatusCode, Json<Template>), ApiError> {
    if request.name.as_ref().is_some_and(|other| !other.is_empty() && *other != name) {
        return Err(ApiError::bad_request("name in the body is not that of the path"));
    }
    request.name = Some(name);
    let (template, made) = put(&gateway, &caller, request).await?;
    Ok((if made { StatusCode::CREATED } else { StatusCode::OK }, Json(template)))
}
