//! What is a success to the clients of the SDKs and an error to everybody who wants to hear of it: the end that was asked for is
//! there already. `Prefer: handling=strict` (RFC 7240) asks to hear of it.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::strict::Handling;

/// How much a client wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leniency {
    /// What is as it shall be is a success, whoever made it so.
    Lenient,
    /// What was not done by this request is an error.
    Strict,
}

impl Leniency {
    /// Whether what is missing already counts as removed.
    pub const fn is_lenient(self) -> bool {
        matches!(self, Self::Lenient)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Leniency {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(match Handling::of(&parts.headers) {
            Handling::Unsaid | Handling::Lenient => Self::Lenient,
            Handling::Strict => Self::Strict,
        })
    }
}
