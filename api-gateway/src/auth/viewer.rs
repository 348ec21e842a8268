//! Links with which somebody without a key may watch one exec, and nothing else, until they expire.

use std::io;

use axum::body::{Body, HttpBody as _};
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

use super::keys::Maker;
use crate::error::ApiError;

const PURPOSE: &str = "viewer-link";
/// No token is longer.
pub(crate) const MAX_LEN: usize = 1 << 10;
/// How long a link may be unknown at a gateway though it is good: another one made it a moment ago.
const FRESH: TimeDelta = TimeDelta::seconds(10);

/// Who may watch what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewerLink {
    /// Its public name.
    pub id: ApiKeyId,
    /// Whose exec it is.
    pub tenant: TenantId,
    /// The exec.
    pub exec: ExecId,
    /// When it stops being good.
    pub expires_at: DateTime<Utc>,
    /// The key that made it. Without that key the link is good for nothing.
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
    pub fn read(token: &str, key: &MasterKey) -> Option<Self> {
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

    /// What it is good by.
    pub const fn maker(&self) -> &Maker {
        &self.maker
    }

    /// Whether it is so new that the record may not have shown it here yet.
    pub fn is_fresh(&self, now: DateTime<Utc>) -> bool {
        self.made_at.is_some_and(|made_at| now - made_at < FRESH)
    }
}

impl Watching {
    /// Somebody who comes by a link that is good at this time, until it is `revoked`.
    pub fn new(link: ViewerLink, now: DateTime<Utc>, revoked: CancellationToken) -> Self {
        let until = Instant::now() + (link.expires_at - now).to_std().unwrap_or_default();
        Self { link, until, revoked }
    }

    /// The link's id.
    pub const fn id(&self) -> &ApiKeyId {
        &self.link.id
    }

    /// The exec that may be watched.
    pub const fn exec(&self) -> ExecId {
        self.link.exec
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
}
