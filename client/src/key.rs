//! What makes a repeated request the same request.

use std::fmt;

use uuid::Uuid;

/// Names one thing that a client wants done once: a request with the same key and the same body is the same request, however
/// often it is sent and through whatever gateway. It serves as the request's id too, by which its events are found.
///
/// ```
/// let key = client::IdempotencyKey::new();
/// assert_ne!(key, client::IdempotencyKey::new());
/// assert_eq!(key.as_str().len(), 32);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// A fresh one.
    #[expect(clippy::new_without_default, reason = "a key is never a default value")]
    pub fn new() -> Self {
        Self(Uuid::now_v7().simple().to_string())
    }

    /// As it goes into a header: 32 hexadecimal characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
