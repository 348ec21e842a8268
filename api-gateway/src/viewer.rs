//! Links with which somebody without a key may watch one exec, and nothing else, until they expire.

use axum::extract::Query;
use axum::http::{Method, Uri};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use chrono::{DateTime, Utc};
use events::{ApiKeyId, EventId, ExecId, IdError, MasterKey, TenantId};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use crate::denied::Denial;
use crate::error::ApiError;
use crate::gateway::Gateway;

const PURPOSE: &str = "viewer-link";
/// No token is longer.
pub(crate) const MAX_LEN: usize = 1 << 10;
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
    /// The key that made it, and without which it is good for nothing; none where authentication was off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<ApiKeyId>,
}

#[derive(Debug, Deserialize)]
struct ViewerQuery {
    viewer: Option<String>,
}

impl ViewerLink {
    /// A fresh link.
    pub fn new(
        tenant: TenantId,
        key: Option<ApiKeyId>,
        exec: ExecId,
        expires_at: DateTime<Utc>,
    ) -> Result<Self, IdError> {
        let unique = EventId::new().to_string();
        let id = format!("vl-{}", unique.trim_start_matches(EventId::PREFIX)).parse()?;
        Ok(Self { id, tenant, exec, expires_at, key })
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

    /// The link that a request comes with, where links are good for anything. Elsewhere a key is needed as ever.
    pub fn of(method: &Method, uri: &Uri, gateway: &Gateway) -> Result<Option<Self>, ApiError> {
        let Some(exec) = watched(method, uri.path()) else { return Ok(None) };
        let Ok(Query(ViewerQuery { viewer: Some(token) })) = Query::try_from_uri(uri) else {
            return Ok(None);
        };
        let link = Self::read(&token, &gateway.config().master_key).ok_or_else(|| {
            ApiError::unauthorized_because("the viewer link is not good").denied(Denial::ViewerLink, None)
        })?;
        if link.expires_at <= gateway.clock().now() {
            let expired = ApiError::unauthorized_because("the viewer link has expired");
            return Err(expired.denied(Denial::ViewerLink, Some(&link.tenant)));
        }
        if gateway.keys().vouches(link.key.as_ref(), &link.tenant).is_none() {
            let orphaned =
                ApiError::unauthorized_because("the key that made the viewer link is not good any more");
            return Err(orphaned.denied(Denial::ViewerLink, Some(&link.tenant)));
        }
        if exec.parse() != Ok(link.exec) {
            return Err(ApiError::absent("exec", exec).denied(Denial::ViewerLink, Some(&link.tenant)));
        }
        Ok(Some(link))
    }

    /// When it expires, on the clock of timers.
    pub fn until(&self, now: DateTime<Utc>) -> Instant {
        Instant::now() + (self.expires_at - now).to_std().unwrap_or_default()
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
        ViewerLink::new(tenant.parse().unwrap(), None, ExecId::from_bytes([7; 16]), at).unwrap()
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
