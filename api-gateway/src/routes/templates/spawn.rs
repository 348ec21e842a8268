//! `POST /templates/{name}/spawn`

use api_types::{Sandbox, SpawnRequest};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{OptionalJsonBody, TemplatePath};
use crate::gateway::Gateway;
use crate::idempotency::IdempotencyKey;

/// Makes a sandbox from a template. A body is not needed; what it says wins over the template, but for the image.
#[utoipa::path(
    post,
    path = "/templates/{name}/spawn",
    tag = "templates",
    params(
        ("name" = String, Path, description = "The template"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key with the same body is the same sandbox"),
    ),
    request_body = Option<SpawnRequest>,
    responses(
        (status = 201, description = "It runs, or is still being made", body = Sandbox),
        (status = 404, description = "No such template", body = ErrorBody),
        (status = 409, description = "The Idempotency-Key was already used with another body", body = ErrorBody),
        (status = 503, description = "No executor of the provider lives", body = ErrorBody),
    )
)]
pub(crate) async fn spawn(
    State(gateway): State<Gateway>,
    caller: Caller,
    TemplatePath(name): TemplatePath,
    key: IdempotencyKey,
    body: OptionalJsonBody<SpawnRequest>,
) -> Result<(StatusCode, Json<Sandbox>), ApiError> {
    let idempotent = key.with(&caller.tenant, &format!("spawn template {name}"), &body.bytes);
    let request = SpawnRequest { template: Some(name), ..body.value };
    let sandbox = crate::routes::sandboxes::spawn::run(&gateway, &caller, request, idempotent).await?;
    Ok((StatusCode::CREATED, Json(sandbox)))
}
