//! `GET /execs/{id}/viewers`

use api_types::{SharedLink, ViewerList};
use axum::Json;
use axum::extract::State;
use feed::Link;

use crate::auth::Caller;
use crate::error::{ApiError, ErrorBody};
use crate::extract::ExecPath;
use crate::gateway::Gateway;
use crate::routes::execs::find;

/// A link as its owner sees it.
fn shared(link: &Link) -> SharedLink {
    SharedLink {
        id: link.id.to_string(),
        created_by: link.actor.to_string(),
        created_at: link.created_at,
        expires_at: link.expires_at,
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
        (status = 200, description = "The links", body = ViewerList),
        (status = 404, description = "No such exec", body = ErrorBody),
    )
)]
pub(crate) async fn list(
    State(gateway): State<Gateway>,
    caller: Caller,
    ExecPath(id): ExecPath,
) -> Result<Json<ViewerList>, ApiError> {
    find(&gateway, &caller, id).await?;
    let now = gateway.clock().now();
    let mut viewers: Vec<SharedLink> = gateway.view().links(|links| {
        let good = links.of(&caller.tenant).filter(|link| link.exec == id && link.expires_at > now);
        good.map(shared).collect()
    });
    viewers.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
    Ok(Json(ViewerList { viewers }))
}
