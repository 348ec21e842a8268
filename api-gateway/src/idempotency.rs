//! `Idempotency-Key`: the same key with the same body is the same object, for as long as the store remembers.
//!
//! The id of the object is derived from tenant, route and key, so no table of keys is needed; the digest of the body
//! rides in the object's own first event, so a key with another body is found out.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use bytes::Bytes;
use events::TenantId;
use secrets::MasterKey;

use crate::error::ApiError;
use crate::gateway::Gateway;

/// The longest key, in characters.
pub(crate) const MAX_KEY_CHARS: usize = 255;

/// The key of a request that has one, and that under which bodies are digested: they may hold secrets, and a digest
/// that anybody could make would tell a guess from the truth.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(Option<(String, MasterKey)>);

impl FromRequestParts<Gateway> for IdempotencyKey {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Self, ApiError> {
        match parts.headers.get("idempotency-key") {
            None => Ok(Self(None)),
            Some(value) => {
                parse(value.as_bytes()).map(|key| Self(Some((key, gateway.config().master_key.clone()))))
            }
        }
    }
}

pub(crate) fn parse(value: &[u8]) -> Result<String, ApiError> {
    let good = !value.is_empty() && value.len() <= MAX_KEY_CHARS && value.iter().all(u8::is_ascii_graphic);
    match std::str::from_utf8(value) {
        Ok(text) if good => Ok(text.to_owned()),
        _ => Err(ApiError::bad_request(format!(
            "Idempotency-Key must be 1 to {MAX_KEY_CHARS} printable ASCII characters without spaces"
        ))),
    }
}

/// A request that must have its effect once.
#[derive(Debug, Clone)]
pub struct Idempotent {
    key: String,
    parts: [String; 3],
    /// What the request says, whatever the order of its fields.
    pub digest: String,
}

impl IdempotencyKey {
    /// A key that is not in a header.
    pub fn of(key: String, master_key: &MasterKey) -> Self {
        Self(Some((key, master_key.clone())))
    }

    /// The key with what it stands for, if there is one. `scope` is the route, with the ids in it.
    pub fn with(&self, tenant: &TenantId, scope: &str, body: &Bytes) -> Option<Idempotent> {
        let (key, master_key) = self.0.as_ref()?;
        // Keyed, so that nobody outside can compute the id of what another tenant has made.
        let secret = master_key.fingerprint("idempotency-key", format!("{tenant} {scope} {key}").as_bytes());
        Some(Idempotent {
            key: key.clone(),
            parts: [tenant.as_str().to_owned(), scope.to_owned(), secret],
            digest: digest(master_key, body),
        })
    }
}

impl Idempotent {
    /// The key, as the client sent it.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What ids are derived from.
    pub fn parts(&self) -> [&str; 3] {
        [&self.parts[0], &self.parts[1], &self.parts[2]]
    }

    /// Whether the object that is there came from the same request.
    pub fn check(&self, recorded: Option<&str>) -> Result<(), ApiError> {
        if recorded == Some(self.digest.as_str()) { Ok(()) } else { Err(conflict()) }
    }
}

/// The same key, another body.
pub fn conflict() -> ApiError {
    ApiError::conflict("this Idempotency-Key was already used with another body")
}

/// A keyed fingerprint of the JSON with sorted keys.
fn digest(key: &MasterKey, body: &Bytes) -> String {
    // serde_json's map is sorted. What is not JSON has no order to forget.
    let canonical =
        serde_json::from_slice::<serde_json::Value>(body).and_then(|value| serde_json::to_vec(&value));
    key.fingerprint("request", canonical.as_deref().unwrap_or(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_fields_does_not_matter_and_their_values_do() {
        let key = MasterKey::from_bytes([0; 32]);
        let of = |text: &'static str| digest(&key, &Bytes::from_static(text.as_bytes()));
        assert_eq!(of(r#"{"a":1,"b":{"c":2,"d":3}}"#), of(r#" {"b":{"d":3,"c":2}, "a":1}"#));
        assert_ne!(of(r#"{"a":1}"#), of(r#"{"a":2}"#));
        let other = MasterKey::from_bytes([1; 32]);
        assert_ne!(of("{}"), digest(&other, &Bytes::from_static(b"{}")));
    }

    #[test]
    fn ids_differ_from_one_deployment_to_the_next() {
        let of = |secret| {
            let key = IdempotencyKey(Some(("job-1".to_owned(), MasterKey::from_bytes([secret; 32]))));
            let found = key.with(&TenantId::default_tenant(), "/sandboxes", &Bytes::from_static(b"{}"));
            events::SandboxId::derived(&found.unwrap().parts())
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_ne!(of(1), events::SandboxId::derived(&["default", "/sandboxes", "job-1"]));
    }

    #[test]
    fn keys_are_printable_and_short() {
        assert!(parse(b"job-17/retry:3").is_ok());
        for bad in [&b""[..], b" ", b"a b", "é".as_bytes(), &[b'x'; 256]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
