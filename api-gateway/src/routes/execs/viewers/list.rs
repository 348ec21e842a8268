//! `GET /execs/{id}/viewers`

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use feed::Link;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::ExecPath;
use crate::gateway::Gateway;
use crate::routes::execs::find;

/// Links with which an exec may be watched.
#[derive(Debug, Serialize, ToSchema)]
pub struct Viewers {
    /// The oldest first.
    pub viewers: Vec<SharedLink>,
}

/// A link, without the token that opens.
#[derive(Debug, Serialize, ToSchema)]
pub struct SharedLink {
    /// Its name: whoever comes by it is `viewer:ID` in the log.
    pub id: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Until when it is good, unless it is revoked or its key goes.
    pub expires_at: DateTime<Utc>,
}

impl From<&Link> for SharedLink {
    fn from(link: &Link) -> Self {
        Self {
            id: link.id.to_string(),
            created_by: link.actor.to_string(),
            created_at: link.created_at,
            expires_at: link.expires_at,
        }
    }
}

/// The links to this exec that have neither expired nor been revoked. One whose key is gone is still there until it expires,
/// and opens nothing.
#[utoipa::path(
    get,
    path = "/execs/{id}/viewers",
    tag = "execs",
    params(("id" = String, Path, description = "The exec")),
    responses(
        (status = 200, description = "The links", body = Viewers),
        (status = 404, description = "No such exec", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
) -> Result<Json<Viewers>, ApiError> {
    find(&gateway, &caller, id).await?;
    let now = gateway.clock().now();
    let mut viewers: Vec<SharedLink> = gateway.view().links(|links| {
        let good = links.of(&caller.tenant).filter(|link| link.exec == id && link.expires_at > now);
        good.map(SharedLink::from).collect()
    });
    viewers.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(Json(Viewers { viewers }))
}
