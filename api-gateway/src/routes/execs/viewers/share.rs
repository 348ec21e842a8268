//! `POST /execs/{id}/viewers`

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, TimeDelta, Utc};
use events::{AccessGranted, EventId};
use feed::Links;
use serde::{Deserialize, Serialize};
use spelling::parse_go_duration;
use utoipa::ToSchema;

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

/// For how long.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ViewerRequest {
    /// A Go duration, at most `168h`; `1h` by default.
    #[schema(example = "1h")]
    pub ttl: Option<String>,
}

/// A link with which anybody may watch the exec.
#[derive(Debug, Serialize, ToSchema)]
pub struct Viewer {
    /// Its name, by which it is revoked: whoever comes by it is `viewer:ID` in the log.
    pub id: String,
    /// The WebSocket to attach to, on this server. The same `viewer=` opens `/execs/{id}`, its output and its recording.
    pub url: String,
    /// The token in it.
    pub token: String,
    /// Until when it is good.
    pub expires_at: DateTime<Utc>,
}

/// Makes a link with which somebody without a key may watch this exec, and only that, until it expires or is revoked. The log
/// says that it was made, and by whom.
#[utoipa::path(
    post,
    path = "/execs/{id}/viewers",
    tag = "execs",
    params(("id" = String, Path, description = "The exec")),
    request_body = ViewerRequest,
    responses(
        (status = 201, description = "The link", body = Viewer),
        (status = 400, description = "No such time", body = ErrorBody),
        (status = 404, description = "No such exec", body = ErrorBody),
    )
)]
pub(crate) async fn share(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
    OptionalJsonBody { value: request, .. }: OptionalJsonBody<ViewerRequest>,
) -> Result<(StatusCode, Json<Viewer>), ApiError> {
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
    Ok((StatusCode::CREATED, Json(Viewer { id: link.id.to_string(), url, token, expires_at })))
}
