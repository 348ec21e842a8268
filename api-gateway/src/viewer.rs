//! Links with which somebody without a key may watch one exec, and nothing else, until they expire.

use std::io;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::Query;
use axum::http::{Method, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, TimeDelta, Utc};
use events::{ApiKeyId, EventId, ExecId, IdError, TenantId};
use futures::StreamExt as _;
use secrets::MasterKey;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::Maker;
use crate::denied::Denial;
use crate::error::ApiError;
use crate::gateway::Gateway;

const PURPOSE: &str = "viewer-link";
/// No token is longer.
pub(crate) const MAX_LEN: usize = 1 << 10;
/// How long a link may be unknown here though it is good, and how long it is waited for.
const FRESH: TimeDelta = TimeDelta::seconds(10);
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
/// What may be watched: the exec itself, and these about it.
const ABOUT: [&str; 3] = ["output", "recording", "attach"];

/// Who may watch what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewerLink {
    /// Its public name.
    pub id: ApiKeyId,
    /// Whose exec it is.
    pub tenant: TenantId,
    /// The exec.
    pub exec: ExecId,
    /// Until when.
    pub expires_at: DateTime<Utc>,
    /// What made it, and without which it is good for nothing.
    #[serde(flatten)]
    maker: Maker,
    /// When it was made: only what is quite new may be unknown here still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_at: Option<DateTime<Utc>>,
}

/// Somebody who watches by a link, as long as it is good.
#[derive(Debug, Clone)]
pub struct Watching {
    link: ViewerLink,
    until: Instant,
    revoked: CancellationToken,
}

/// How a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkEnd {
    /// By itself.
    Expired,
    /// By somebody.
    Revoked,
}

impl LinkEnd {
    /// One sentence for people.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Expired => "the viewer link has expired",
            Self::Revoked => "the viewer link was revoked",
        }
    }
}

#[derive(Debug, Deserialize)]
struct ViewerQuery {
    viewer: Option<String>,
}

impl ViewerLink {
    /// A fresh link.
    pub fn new(
        tenant: TenantId,
        maker: Maker,
        exec: ExecId,
        (made_at, expires_at): (DateTime<Utc>, DateTime<Utc>),
    ) -> Result<Self, IdError> {
        let unique = EventId::new().to_string();
        let id = format!("vl-{}", unique.trim_start_matches(EventId::PREFIX)).parse()?;
        Ok(Self { id, tenant, exec, expires_at, maker, made_at: Some(made_at) })
    }

    /// The link as it is handed on: what it says, and the proof that this deployment said it.
    pub fn sign(&self, key: &MasterKey) -> Result<String, ApiError> {
        let said = BASE64.encode(serde_json::to_vec(self).map_err(ApiError::internal)?);
        let proof = key.fingerprint(PURPOSE, said.as_bytes());
        Ok(format!("{said}.{proof}"))
    }

    /// What a token says, if this deployment said it.
    fn read(token: &str, key: &MasterKey) -> Option<Self> {
        if token.len() > MAX_LEN {
            return None;
        }
        let (said, proof) = token.split_once('.')?;
        let right = key.fingerprint(PURPOSE, said.as_bytes());
        if !bool::from(proof.as_bytes().ct_eq(right.as_bytes())) {
            return None;
        }
        serde_json::from_slice(&BASE64.decode(said).ok()?).ok()
    }

    /// Whether it is so new that the record may not have shown it here yet.
    fn is_fresh(&self, now: DateTime<Utc>) -> bool {
        self.made_at.is_some_and(|made_at| now - made_at < FRESH)
    }
}

impl Watching {
    /// Who a request comes from that brings a link, where links are good for anything. Elsewhere a key is needed as ever.
    pub async fn of(method: &Method, uri: &Uri, gateway: &Gateway) -> Result<Option<Self>, ApiError> {
        let Some(exec) = watched(method, uri.path()) else { return Ok(None) };
        let Ok(Query(ViewerQuery { viewer: Some(token) })) = Query::try_from_uri(uri) else {
            return Ok(None);
        };
        let link = ViewerLink::read(&token, &gateway.config().master_key).ok_or_else(|| {
            ApiError::unauthorized_because("the viewer link is not good").denied(Denial::ViewerLink, None)
        })?;
        let refused =
            |why| ApiError::unauthorized_because(why).denied(Denial::ViewerLink, Some(&link.tenant));
        let now = gateway.clock().now();
        if link.expires_at <= now {
            return Err(refused(LinkEnd::Expired.message()));
        }
        if gateway.keys().vouches(&link.maker, &link.tenant).is_none() {
            return Err(refused("the key that made the viewer link is not good any more"));
        }
        if exec.parse() != Ok(link.exec) {
            return Err(ApiError::absent("exec", exec).denied(Denial::ViewerLink, Some(&link.tenant)));
        }
        let revoked = || gateway.view().links(|links| links.get(&link.id).map(|known| known.revoked.clone()));
        let mut found = revoked();
        // Another gateway made it a moment ago.
        let patience = Instant::now() + PATIENCE;
        while found.is_none() && link.is_fresh(now) && Instant::now() < patience {
            tokio::time::sleep(PAUSE).await;
            found = revoked();
        }
        let revoked = found.ok_or_else(|| refused(LinkEnd::Revoked.message()))?;
        let until = Instant::now() + (link.expires_at - now).to_std().unwrap_or_default();
        Ok(Some(Self { link, until, revoked }))
    }

    /// The link's id.
    pub const fn id(&self) -> &ApiKeyId {
        &self.link.id
    }

    /// Whose exec it is.
    pub const fn tenant(&self) -> &TenantId {
        &self.link.tenant
    }

    /// Waits until the link is not good any more.
    pub async fn over(&self) -> LinkEnd {
        tokio::select! {
            biased;
            () = self.revoked.cancelled() => LinkEnd::Revoked,
            () = tokio::time::sleep_until(self.until) => LinkEnd::Expired,
        }
    }

    /// The same answer, which breaks off when the link is not good any more. What is whole already stays so.
    pub fn bound(self, response: Response) -> Response {
        response.map(|body| {
            if body.size_hint().exact().is_some() {
                return body;
            }
            let parts = (self, body.into_data_stream());
            Body::from_stream(futures::stream::try_unfold(parts, |(watching, mut bytes)| async move {
                tokio::select! {
                    biased;
                    // The connection breaks, so that nobody takes this for the end.
                    end = watching.over() => Err(io::Error::other(end.message())),
                    next = bytes.next() => match next.transpose().map_err(io::Error::other)? {
                        Some(next) => Ok(Some((next, (watching, bytes)))),
                        None => Ok(None),
                    },
                }
            }))
        })
    }
}

/// Whether a text is the token of a link of this deployment.
pub(crate) fn reads(token: &str, key: &MasterKey) -> bool {
    ViewerLink::read(token, key).is_some()
}

/// The exec that a request wants to watch, if it is such a request.
fn watched<'a>(method: &Method, path: &'a str) -> Option<&'a str> {
    let (_, rest) = path.split_once("/execs/")?;
    let (exec, about) = match rest.trim_end_matches('/').split_once('/') {
        Some((exec, about)) => (exec, Some(about)),
        None => (rest.trim_end_matches('/'), None),
    };
    let open = about.is_none_or(|about| ABOUT.contains(&about));
    ((method == Method::GET || method == Method::HEAD) && open).then_some(exec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(tenant: &str) -> ViewerLink {
        let at = DateTime::from_timestamp(1_750_000_000, 0).unwrap();
        let exec = ExecId::from_bytes([7; 16]);
        ViewerLink::new(tenant.parse().unwrap(), Maker::default(), exec, (at, at)).unwrap()
    }

    #[test]
    fn a_token_is_good_as_it_is_and_at_its_own_deployment_only() {
        let key = MasterKey::from_bytes([1; 32]);
        let token = link("red").sign(&key).unwrap();
        assert_eq!(ViewerLink::read(&token, &key).unwrap().tenant.as_str(), "red");
        assert_eq!(ViewerLink::read(&token, &MasterKey::from_bytes([2; 32])), None);
        let (said, proof) = token.split_once('.').unwrap();
        let other = BASE64.encode(serde_json::to_string(&link("blue")).unwrap());
        for forged in [format!("{other}.{proof}"), format!("{said}."), said.to_owned(), String::new()] {
            assert_eq!(ViewerLink::read(&forged, &key), None, "{forged}");
        }
        // A ticket is signed with the same key for another purpose.
        let proof = key.fingerprint("ticket", said.as_bytes());
        assert_eq!(ViewerLink::read(&format!("{said}.{proof}"), &key), None);
        // Safe in a URL as it is.
        assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
    }

    #[test]
    fn only_watching_is_open_to_links() {
        for path in [
            "/execs/ex-1",
            "/execs/ex-1/",
            "/api/v1/execs/ex-1/output",
            "/execs/ex-1/attach",
            "/execs/ex-1/recording",
        ] {
            assert_eq!(watched(&Method::GET, path), Some("ex-1"), "{path}");
            assert_eq!(watched(&Method::DELETE, path), None, "{path}");
            assert_eq!(watched(&Method::POST, path), None, "{path}");
        }
        for path in [
            "/sandboxes/sb-1/execs",
            "/execs/ex-1/viewers",
            "/execs/ex-1/stream",
            "/execs/ex-1/output/x",
            "/sandboxes",
        ] {
            assert_eq!(watched(&Method::GET, path), None, "{path}");
        }
    }
}
