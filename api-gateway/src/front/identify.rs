//! The layer that finds out who calls, and asks whether it may do what it wants to.

use std::time::Duration;

use axum::RequestPartsExt as _;
use axum::extract::{Path, Query, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use events::{RequestId, TenantId};
use serde::Deserialize;
use tokio::time::Instant;

use super::traceparent::traceparent;
use crate::auth::ticket::{self, Ticket};
use crate::auth::viewer::{LinkEnd, ViewerLink, Watching};
use crate::auth::{Action, Caller, Resource, Role, Scope, authorize, user_id};
use crate::denied::{Denial, Peer};
use crate::error::ApiError;
use crate::gateway::Gateway;

/// How long a link that another gateway made a moment ago is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked for meanwhile.
const PAUSE: Duration = Duration::from_millis(20);

/// Lets in who may do what the route is for. Behind it, [`Caller`] is there.
pub async fn require(
    State(gateway): State<Gateway>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    crate::origin::check_host(&parts.uri, &parts.headers)?;
    crate::origin::check(&parts.headers, &gateway.config().allowed_origins)?;
    if gateway.keys().is_empty() {
        crate::origin::check_loopback(&parts.headers)?;
    }
    let caller = identify(&mut parts, &gateway).await?;
    may(&caller)?;
    let watching = caller.viewer.clone();
    parts.extensions.insert(caller);
    let response = next.run(Request::from_parts(parts, body)).await;
    Ok(match watching {
        Some(watching) => watching.bound(response),
        None => response,
    })
}

/// Whether the caller may do this at all, by what can be known before anything is looked up.
fn may(caller: &Caller) -> Result<(), ApiError> {
    let resource = match caller.action.scope() {
        Scope::Server => Resource::Server,
        Scope::Host => Resource::Host,
        Scope::Deployment => Resource::Deployment,
        Scope::Tenant => Resource::Tenant(&caller.tenant),
    };
    authorize(caller, caller.action, resource)
        .map_err(|refusal| refusal.answer(caller, || ApiError::not_found("no such thing")))
}

/// Who calls: by a viewer link, a ticket or a key, in this order.
async fn identify(parts: &mut Parts, gateway: &Gateway) -> Result<Caller, ApiError> {
    // The table of routes has one for each of them. Where it had none nothing would be open.
    let action = parts.extensions.get::<Action>().copied();
    let action = action.ok_or_else(|| ApiError::internal("a route without an action"))?;
    let link = if Role::Viewer.has(action) { watching(parts, gateway).await? } else { None };
    let (headers, extensions) = (&parts.headers, &parts.extensions);
    let caller = |tenant, role| Caller {
        is_of_only_tenant: gateway.keys().is_of_one_tenant(),
        request_id: extensions.get::<RequestId>().cloned().unwrap_or_else(RequestId::new),
        source: extensions.get::<Peer>().map(|peer| peer.0),
        traceparent: traceparent(headers),
        ..Caller::new(tenant, role, action)
    };
    if let Some(link) = link {
        let caller = caller(link.tenant().clone(), Role::Viewer);
        return Ok(Caller { viewer: Some(link), ..caller });
    }
    let ticket =
        if ticket::is_for(&parts.method, action, headers) { spend(headers, gateway).await? } else { None };
    let caller = match ticket {
        Some((ticket, role)) => {
            let (key, tenant, user) = ticket.into_parts();
            Caller { key, user, ..caller(tenant, role) }
        }
        None => match gateway.keys().identify(headers)? {
            Some(key) => Caller { key: Some(key.id.clone()), ..caller(key.tenant.clone(), key.role) },
            None => caller(TenantId::default_tenant(), Role::DeploymentAdmin),
        },
    };
    match headers.get("x-user-id") {
        None => Ok(caller),
        Some(value) => {
            let text = std::str::from_utf8(value.as_bytes())
                .map_err(|_| ApiError::bad_request("X-User-ID is not UTF-8"))?;
            Ok(Caller { user: user_id(text, "X-User-ID")?, ..caller })
        }
    }
}

/// Takes the ticket that a request for a WebSocket offers, if it offers one, and says in which role it lets in. It is of no more
/// use then, here or elsewhere. The key that bought it must be there still.
async fn spend(headers: &HeaderMap, gateway: &Gateway) -> Result<Option<(Ticket, Role)>, ApiError> {
    let Some(offered) = ticket::offered(headers) else { return Ok(None) };
    let refused = |tenant: Option<&TenantId>| {
        ApiError::unauthorized_because("the ticket is not good: it is spent, expired, or none")
            .denied(Denial::Ticket, tenant)
    };
    let now = gateway.clock().now();
    let ticket = Ticket::read(offered, &gateway.config().master_key, now).ok_or_else(|| refused(None))?;
    match gateway.log().spend(ticket.id()).await {
        Ok(true) => match gateway.keys().vouches(ticket.maker(), ticket.tenant()) {
            Some(role) => Ok(Some((ticket, role))),
            None => Err(refused(Some(ticket.tenant()))),
        },
        Ok(false) => Err(refused(Some(ticket.tenant()))),
        Err(error) => Err(ApiError::unavailable(error)),
    }
}

#[derive(Debug, Deserialize)]
struct ViewerQuery {
    viewer: Option<String>,
}

/// Who comes by a viewer link, if the request brings one.
async fn watching(parts: &mut Parts, gateway: &Gateway) -> Result<Option<Watching>, ApiError> {
    let Ok(Query(ViewerQuery { viewer: Some(token) })) = Query::try_from_uri(&parts.uri) else {
        return Ok(None);
    };
    let link = ViewerLink::read(&token, &gateway.config().master_key).ok_or_else(|| {
        ApiError::unauthorized_because("the viewer link is not good").denied(Denial::ViewerLink, None)
    })?;
    let refused = |why| ApiError::unauthorized_because(why).denied(Denial::ViewerLink, Some(&link.tenant));
    let now = gateway.clock().now();
    if link.expires_at <= now {
        return Err(refused(LinkEnd::Expired.message()));
    }
    if gateway.keys().vouches(link.maker(), &link.tenant).is_none() {
        return Err(refused("the key that made the viewer link is not good any more"));
    }
    let exec = parts.extract::<Path<String>>().await.map_or_else(|_| String::new(), |Path(exec)| exec);
    if exec.parse() != Ok(link.exec) {
        return Err(ApiError::absent("exec", exec).denied(Denial::ViewerLink, Some(&link.tenant)));
    }
    let revoked = || gateway.view().links(|links| links.get(&link.id).map(|known| known.revoked.clone()));
    let mut found = revoked();
    let patience = Instant::now() + PATIENCE;
    while found.is_none() && link.is_fresh(now) && Instant::now() < patience {
        tokio::time::sleep(PAUSE).await;
        found = revoked();
    }
    let revoked = found.ok_or_else(|| refused(LinkEnd::Revoked.message()))?;
    Ok(Some(Watching::new(link, now, revoked)))
}
