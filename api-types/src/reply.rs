//! Answers that say nothing but that it is done.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A word that says what happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Status))]
pub struct Reply {
    /// The word.
    pub status: Cow<'static, str>,
}
