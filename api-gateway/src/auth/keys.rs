//! The keys that open the door, and what is made with one of them and dies with it.

use std::fmt;

use axum::http::{HeaderMap, header};
use events::{ApiKeyId, TenantId};
use secrets::MasterKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::role::Role;
use crate::denied::Denial;
use crate::error::ApiError;

/// A key that clients may present, known by its hash only.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// The public name, which events and logs may show.
    pub id: ApiKeyId,
    /// Whose sandboxes it opens.
    pub tenant: TenantId,
    /// What its holder may do.
    pub role: Role,
    /// SHA-256 of the key as the client sends it.
    pub sha256: [u8; 32],
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("id", &self.id).field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// The key that made something which stands for it. The thing is good as long as the key is.
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

    /// Whether there are none, so that everybody is let in.
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What a holder of this key makes things as.
    pub(crate) fn maker(&self, key: Option<&ApiKeyId>) -> Maker {
        let at = self.keys.iter().position(|known| Some(&known.id) == key);
        Maker { key: key.cloned(), print: at.and_then(|at| self.prints.get(at).cloned()) }
    }

    /// The role of the key that made something, if that key is still there with the same secret, of the same tenant. Where
    /// authentication is off only what was made without a key is good.
    pub(crate) fn vouches(&self, maker: &Maker, tenant: &TenantId) -> Option<Role> {
        let Some(id) = &maker.key else {
            return (self.keys.is_empty() && *tenant == TenantId::default_tenant())
                .then_some(Role::DeploymentAdmin);
        };
        let is_it = |(key, print): &(&ApiKey, &String)| {
            key.id == *id && key.tenant == *tenant && maker.print.as_ref() == Some(*print)
        };
        self.keys.iter().zip(&self.prints).find(is_it).map(|(key, _)| key.role)
    }

    /// The key that was shown; `None` where authentication is off.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Option<&ApiKey>, ApiError> {
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

/// The key that a request shows, in whichever of the three headers it comes.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    let named = headers.get("x-api-key").or_else(|| headers.get("x-admin-api-key"));
    if let Some(value) = named {
        return Some(value.as_bytes());
    }
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| key.trim_ascii())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::error::ErrorCode;

    fn ring() -> KeyRing {
        let key = |id: &str, tenant: &str, secret: &str| ApiKey {
            id: id.parse().unwrap(),
            tenant: tenant.parse().unwrap(),
            role: Role::Member,
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
        assert_eq!(ring().vouches(&good, &red), Some(Role::Member));
        assert_eq!(ring().vouches(&good, &blue), None);
        assert_eq!(ring().vouches(&maker("k3", print_of("secret-one")), &red), None);
        // The id is kept, the secret is another.
        assert_eq!(ring().vouches(&maker("k1", print_of("secret-before")), &red), None);
        assert_eq!(ring().vouches(&maker("k1", None), &red), None);
        assert_eq!(ring().vouches(&Maker::default(), &TenantId::default_tenant()), None);
        assert_eq!(KeyRing::default().vouches(&good, &red), None);
        assert_eq!(
            KeyRing::default().vouches(&Maker::default(), &TenantId::default_tenant()),
            Some(Role::DeploymentAdmin)
        );
    }

    #[test]
    fn without_keys_any_key_is_none() {
        let key = KeyRing::default().identify(&headers(&[("x-api-key", "any")])).unwrap().cloned();
        assert_eq!(key, None);
    }

    #[test]
    fn a_key_does_not_show_its_hash() {
        let key = ApiKey {
            id: "k1".parse().unwrap(),
            tenant: TenantId::default_tenant(),
            role: Role::Member,
            sha256: [0xab; 32],
        };
        assert!(!format!("{key:?}").contains("171"));
    }
}
