//! Who calls: the key says which tenant, `X-User-ID` says which of its users.

use std::net::IpAddr;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use events::{Actor, ApiKeyId, RequestId, TenantId};
use secrets::MasterKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::ApiKey;
use crate::denied::{Denial, Peer};
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::share::visit::Visit;
use crate::ticket::Ticket;
use crate::viewer::Watching;

/// The longest user id, in characters.
pub(crate) const MAX_USER_CHARS: usize = 128;

/// What made something that stands for a key: it is good as long as that is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Maker {
    /// The key; none where authentication was off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<ApiKeyId>,
    /// Which secret it had: an id that is kept with a new secret is another key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    print: Option<String>,
}

impl Maker {
    /// The key.
    pub(crate) fn into_key(self) -> Option<ApiKeyId> {
        self.key
    }
}

/// The keys that open the door.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: Vec<ApiKey>,
    /// Of each key, what is handed out in place of its hash.
    prints: Vec<String>,
}

/// What fingerprints of keys are made for.
const PURPOSE: &str = "api-key";

impl KeyRing {
    /// A ring of these keys. An empty one lets everybody in, as the default tenant.
    pub fn new(keys: Vec<ApiKey>, master_key: &MasterKey) -> Self {
        let prints = keys.iter().map(|key| master_key.fingerprint(PURPOSE, &key.sha256)).collect();
        Self { keys, prints }
    }

    /// Whether all keys are of one tenant: then there is nobody else whose share of the whole it could learn.
    pub fn is_of_one_tenant(&self) -> bool {
        self.keys.windows(2).all(|pair| pair[0].tenant == pair[1].tenant)
    }

    /// Whose key this is. Takes the same time whichever key it is, and whether it is one.
    fn find(&self, presented: &[u8]) -> Option<&ApiKey> {
        let digest: [u8; 32] = Sha256::digest(presented).into();
        let mut found = None;
        for key in &self.keys {
            if bool::from(key.sha256.ct_eq(&digest)) {
                found = Some(key);
            }
        }
        found
    }

    /// What a caller makes things as.
    pub(crate) fn maker(&self, caller: &Caller) -> Maker {
        let at = self.keys.iter().position(|key| Some(&key.id) == caller.key.as_ref());
        Maker { key: caller.key.clone(), print: at.and_then(|at| self.prints.get(at).cloned()) }
    }

    /// Whether what a key had made is good still: the key is there with the same secret, of the same tenant. Says whether it
    /// is an operator's. Where authentication is off only what was made without a key is good.
    pub(crate) fn vouches(&self, maker: &Maker, tenant: &TenantId) -> Option<bool> {
        let Some(id) = &maker.key else {
            return (self.keys.is_empty() && *tenant == TenantId::default_tenant()).then_some(true);
        };
        let is_it = |(key, print): &(&ApiKey, &String)| {
            key.id == *id && key.tenant == *tenant && maker.print.as_ref() == Some(*print)
        };
        self.keys.iter().zip(&self.prints).find(is_it).map(|(key, _)| key.operator)
    }

    /// The key that was shown; `None` where authentication is off.
    fn identify(&self, headers: &HeaderMap) -> Result<Option<&ApiKey>, ApiError> {
        if self.keys.is_empty() {
            return Ok(None);
        }
        let Some(presented) = presented(headers) else {
            return Err(ApiError::unauthorized().denied(Denial::NoKey, None));
        };
        let wrong = || ApiError::unauthorized().denied(Denial::WrongKey, None);
        self.find(presented).map(Some).ok_or_else(wrong)
    }
}

pub(crate) fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let named = headers.get("x-api-key").or_else(|| headers.get("x-admin-api-key"));
    if let Some(value) = named {
        return Some(value.as_bytes());
    }
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

/// Who calls, known to be let in.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose sandboxes are meant.
    pub tenant: TenantId,
    /// The key that was shown; none where authentication is off.
    pub key: Option<ApiKeyId>,
    /// Whether it is the operator, who may read what all tenants did. Where authentication is off everybody is.
    pub operator: bool,
    /// `X-User-ID`.
    pub user: Option<String>,
    /// The viewer link that stands for a key, where one does. It lets in to watch one exec only.
    pub viewer: Option<Watching>,
    /// The request's id.
    pub request_id: RequestId,
    /// The address that it came from, as far as that is known.
    pub source: Option<IpAddr>,
}

impl Caller {
    /// Lets only the operator in.
    pub fn must_operate(&self) -> Result<(), ApiError> {
        if self.operator {
            return Ok(());
        }
        Err(ApiError::forbidden("this is for the operator: a key with admin: true, or auth.admin_api_key"))
    }

    /// Whether numbers of the whole deployment are shown: to operators, and to everybody where there is nobody else.
    pub(crate) fn sees_the_whole(&self, gateway: &Gateway) -> bool {
        self.operator || gateway.keys().is_of_one_tenant()
    }

    /// Whether a key shows that it is the operator. Where authentication is off nobody shows anything.
    pub const fn is_operator_by_key(&self) -> bool {
        self.operator && self.key.is_some()
    }

    /// The tenant of this name, if its record may be looked at; `None` is everybody's (`*`). Whoever is no operator is not
    /// told which tenants there are.
    pub fn tenant_named(&self, name: &str) -> Result<Option<TenantId>, ApiError> {
        if name == "*" && self.operator {
            return Ok(None);
        }
        match name.parse::<TenantId>() {
            Ok(tenant) if self.operator || tenant == self.tenant => Ok(Some(tenant)),
            Ok(_) | Err(_) => {
                Err(ApiError::not_found("no such tenant").denied(Denial::Tenant, Some(&self.tenant)))
            }
        }
    }

    /// The same, as events and commands name it.
    pub fn actor(&self) -> Actor {
        if let Some(link) = &self.viewer {
            return Actor::Viewer(link.id().clone());
        }
        Actor::Client { key: self.key.clone(), user: self.user.clone() }
    }
}

/// The layer that lets in. Behind it, [`Caller`] is there.
pub async fn require(
    State(gateway): State<Gateway>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let headers = request.headers();
    crate::origin::check_host(request.uri(), headers)?;
    crate::origin::check(headers, &gateway.config().allowed_origins)?;
    if gateway.keys().keys.is_empty() {
        crate::origin::check_loopback(headers)?;
    }
    let source = request.extensions().get::<Peer>().map(|peer| peer.0);
    let request_id = request.extensions().get::<RequestId>().cloned().unwrap_or_else(RequestId::new);
    if let Some(watching) = Watching::of(request.method(), request.uri(), &gateway).await? {
        let tenant = watching.tenant().clone();
        let viewer = Some(watching.clone());
        let caller = Caller { tenant, key: None, operator: false, user: None, viewer, request_id, source };
        request.extensions_mut().insert(caller);
        return Ok(watching.bound(next.run(request).await));
    }
    let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let (key, tenant, operator, named) =
        match Ticket::take((request.method(), route), headers, &gateway).await? {
            Some((ticket, operator)) => {
                let (key, tenant, user) = ticket.into_parts();
                (key, tenant, operator, user)
            }
            None => match gateway.keys().identify(headers)? {
                Some(key) => (Some(key.id.clone()), key.tenant.clone(), key.operator, None),
                None => (None, TenantId::default_tenant(), true, None),
            },
        };
    let user = match headers.get("x-user-id") {
        None => named,
        Some(value) => {
            let text = std::str::from_utf8(value.as_bytes())
                .map_err(|_| ApiError::bad_request("X-User-ID is not UTF-8"))?;
            user_id(text, "X-User-ID")?
        }
    };
    let caller = Caller { tenant, key, operator, user, viewer: None, request_id, source };
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}

/// The layer that lets in as many of each tenant as there may be.
pub async fn admit(State(gateway): State<Gateway>, caller: Caller, request: Request, next: Next) -> Response {
    let Some(visit) = request.extensions().get::<Visit>().cloned() else {
        return next.run(request).await;
    };
    let shares = gateway.shares();
    if let Err(error) = shares.admit(&caller, &visit) {
        return error.into_response();
    }
    let is_read = request.method() == Method::GET;
    let turn = match request.extensions().get::<MatchedPath>() {
        Some(path) if is_read && READS_MUCH.iter().any(|route| path.as_str().ends_with(route)) => {
            match shares.reading(&caller).await {
                Ok(turn) => Some(turn),
                Err(error) => return error.into_response(),
            }
        }
        Some(_) | None => None,
    };
    let response = next.run(request).await;
    drop(turn);
    // What only watches has done nothing yet. What does something says itself that it is a stream, before it does it.
    if is_read
        && is_stream(&response)
        && let Err(error) = shares.stream(&caller, &visit)
    {
        return error.into_response();
    }
    response
}

/// Routes that look through much of the record before they answer.
const READS_MUCH: [&str; 5] = ["/audit", "/audit/checkpoints", "/timeline", "/logs", "/execs"];

/// Whether an answer is one that goes on.
fn is_stream(response: &Response) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    response.status() == StatusCode::SWITCHING_PROTOCOLS
        || matches!(kind, Some(b"text/event-stream" | b"application/x-ndjson" | b"application/octet-stream"))
}

/// Reads the name of a user, from the header or from a body. Empty means nobody.
pub fn user_id(text: &str, source: &'static str) -> Result<Option<String>, ApiError> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '\\';
    if text.chars().count() > MAX_USER_CHARS || text.contains(forbidden) {
        return Err(ApiError::bad_request(format!(
            "{source} must be at most {MAX_USER_CHARS} characters without whitespace, control characters or path separators"
        )));
    }
    Ok(Some(text.to_owned()))
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // A route that forgot the layer must not be open.
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthorized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    fn ring() -> KeyRing {
        let key = |id: &str, tenant: &str, secret: &str| ApiKey {
            id: id.parse().unwrap(),
            tenant: tenant.parse().unwrap(),
            operator: false,
            sha256: Sha256::digest(secret).into(),
        };
        let keys = vec![key("k1", "red", "secret-one"), key("k2", "blue", "secret-two")];
        KeyRing::new(keys, &MasterKey::from_bytes([1; 32]))
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect()
    }

    #[test]
    fn a_key_is_taken_in_three_headers_and_says_the_tenant() {
        for pair in [
            ("x-api-key", "secret-two"),
            ("x-admin-api-key", "secret-two"),
            ("authorization", "Bearer secret-two"),
            ("authorization", "bearer  secret-two"),
        ] {
            let ring = ring();
            let key = ring.identify(&headers(&[pair])).unwrap().unwrap();
            assert_eq!((key.id.as_str(), key.tenant.as_str()), ("k2", "blue"), "{pair:?}");
        }
    }

    #[test]
    fn no_key_a_wrong_key_and_part_of_a_key_are_refused() {
        for pairs in [
            &[][..],
            &[("x-api-key", "")],
            &[("x-api-key", "secret-tw")],
            &[("x-api-key", "secret-two!")],
            &[("x-api-key", "é")],
            &[("authorization", "Basic secret-two")],
            &[("authorization", "Bearer")],
            &[("authorization", "é")],
        ] {
            let error = ring().identify(&headers(pairs)).map(|key| key.cloned()).unwrap_err();
            assert_eq!(error.code(), ErrorCode::Unauthorized, "{pairs:?}");
        }
    }

    #[test]
    fn what_a_key_made_dies_with_it() {
        let (red, blue) = ("red".parse().unwrap(), "blue".parse().unwrap());
        let print_of = |secret: &str| {
            let digest: [u8; 32] = Sha256::digest(secret).into();
            Some(MasterKey::from_bytes([1; 32]).fingerprint(PURPOSE, &digest))
        };
        let maker = |id: &str, print| Maker { key: Some(id.parse().unwrap()), print };
        let good = maker("k1", print_of("secret-one"));
        assert_eq!(ring().vouches(&good, &red), Some(false));
        assert_eq!(ring().vouches(&good, &blue), None);
        assert_eq!(ring().vouches(&maker("k3", print_of("secret-one")), &red), None);
        // The id is kept, the secret is another.
        assert_eq!(ring().vouches(&maker("k1", print_of("secret-before")), &red), None);
        assert_eq!(ring().vouches(&maker("k1", None), &red), None);
        assert_eq!(ring().vouches(&Maker::default(), &TenantId::default_tenant()), None);
        assert_eq!(KeyRing::default().vouches(&good, &red), None);
        assert_eq!(KeyRing::default().vouches(&Maker::default(), &TenantId::default_tenant()), Some(true));
    }

    #[test]
    fn without_keys_any_key_is_none() {
        let key = KeyRing::default().identify(&headers(&[("x-api-key", "any")])).unwrap().cloned();
        assert_eq!(key, None);
    }

    #[test]
    fn user_ids_are_trimmed_and_checked() {
        assert_eq!(user_id(" alice@example.com ", "x").unwrap().as_deref(), Some("alice@example.com"));
        assert_eq!(user_id("  ", "x").unwrap(), None);
        assert!(user_id(&"ü".repeat(128), "x").is_ok());
        for bad in ["a/b", "a\\b", "a b", "a\tb", "a\0b", &"x".repeat(129)] {
            assert_eq!(user_id(bad, "x").unwrap_err().code(), ErrorCode::BadRequest, "{bad:?}");
        }
    }
}
