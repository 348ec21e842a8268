//! `POST /execs/{id}/viewers`

use std::time::Duration;

use api_types::ViewerRequest;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::TimeDelta;
use events::{AccessGranted, EventId};
use feed::Links;
use spelling::parse_go_duration;

use super::{MOST, shown};
use crate::auth::Caller;
use crate::auth::viewer::ViewerLink;
use crate::error::{ApiError, ErrorBody};
use crate::extract::{ExecPath, OptionalJsonBody};
use crate::gateway::Gateway;
use crate::routes::execs::find;

/// How long a link is good where the request does not say, and at most.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);
const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Makes a link with which somebody without a key may watch this exec, and only that, until it expires or is revoked. The log
/// says that it was made, and by whom.
#[utoipa::path(
    post,
    path = "/execs/{id}/viewers",
    tag = "execs",
    params(("id" = String, Path, description = "The exec")),
    request_body = ViewerRequest,
    responses(
        (status = 201, description = "The link", body = api_types::ViewerLink),
        (status = 400, description = "No such time", body = ErrorBody),
        (status = 404, description = "No such exec", body = ErrorBody),
    )
)]
pub(crate) async fn share(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    OptionalJsonBody { value: request, .. }: OptionalJsonBody<ViewerRequest>,
) -> Result<(StatusCode, Json<api_types::ViewerLink>), ApiError> {
    let ttl = match request.ttl.as_deref().filter(|text| !text.is_empty()) {
        None => DEFAULT_TTL,
        Some(text) => {
            parse_go_duration(text).map_err(|error| ApiError::bad_request(format!("ttl: {error}")))?
        }
    };
    if ttl.is_zero() || ttl > MAX_TTL {
        return Err(ApiError::bad_request("ttl must be more than 0s and at most 168h"));
    }
    let state = find(&gateway, &caller, id).await?;
    let now = gateway.clock().now();
    let expires_at = now + TimeDelta::from_std(ttl).map_err(ApiError::internal)?;
    let good = |links: &Links| links.of(&caller.tenant).filter(|link| link.expires_at > now).count();
    if gateway.view().links(good) >= MOST {
        let message = format!("there are {MOST} viewer links that are good: revoke some, or let them expire");
        return Err(ApiError::resource_limit(message, Duration::from_secs(60)));
    }
    let maker = gateway.keys().maker(caller.key.as_ref());
    let link =
        ViewerLink::new(caller.tenant.clone(), maker, id, (now, expires_at)).map_err(ApiError::internal)?;
    let token = link.sign(&gateway.config().master_key)?;
    let granted = AccessGranted { exec: id, expires_at, viewer: Some(link.id.clone()) };
    gateway.publish(&caller, Some(state.sandbox), EventId::new(), now, granted).await?;
    shown(&gateway, &link.id, |shown| shown.is_some()).await?;
    let url = format!("/api/v1/execs/{id}/attach?viewer={token}");
    let shared =
        api_types::ViewerLink { id: link.id.to_string(), url: url.into(), token: token.into(), expires_at };
    Ok((StatusCode::CREATED, Json(shared)))
}
