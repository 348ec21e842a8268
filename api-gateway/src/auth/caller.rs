//! Who calls, and what it wants to do.

use std::net::IpAddr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use events::{Actor, ApiKeyId, RequestId, TenantId};

use super::action::Action;
use super::role::Role;
use super::viewer::Watching;
use crate::error::ApiError;

/// The longest user id, in characters.
pub(crate) const MAX_USER_CHARS: usize = 128;

/// Who calls, known to be let in.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Whose sandboxes are meant.
    pub tenant: TenantId,
    /// Whether no other tenant has a key: then numbers of the whole deployment are the tenant's own.
    pub is_of_only_tenant: bool,
    /// What it may do.
    pub role: Role,
    /// What it wants to do: the action of the route.
    pub action: Action,
    /// The key that was shown; none where authentication is off.
    pub key: Option<ApiKeyId>,
    /// `X-User-ID`.
    pub user: Option<String>,
    /// The viewer link that stands for a key, where one does. It lets in to watch one exec only.
    pub viewer: Option<Watching>,
    /// The request's id.
    pub request_id: RequestId,
    /// The trace that the request belongs to (W3C), if it says one.
    pub traceparent: Option<String>,
    /// The address that it came from, as far as that is known.
    pub source: Option<IpAddr>,
}

impl Caller {
    /// Somebody of whom no more is known.
    pub fn new(tenant: TenantId, role: Role, action: Action) -> Self {
        Self {
            tenant,
            is_of_only_tenant: false,
            role,
            action,
            key: None,
            user: None,
            viewer: None,
            request_id: RequestId::new(),
            traceparent: None,
            source: None,
        }
    }

    /// Whether a key shows that it runs the deployment. Where authentication is off nobody shows anything.
    pub const fn is_admin_by_key(&self) -> bool {
        matches!(self.role, Role::DeploymentAdmin) && self.key.is_some()
    }

    /// The caller, as events and commands name it.
    pub fn actor(&self) -> Actor {
        if let Some(link) = &self.viewer {
            return Actor::Viewer(link.id().clone());
        }
        Actor::Client { key: self.key.clone(), user: self.user.clone() }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // A route that forgot the layer must not be open.
        parts.extensions.get::<Self>().cloned().ok_or_else(ApiError::unauthorized)
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

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
