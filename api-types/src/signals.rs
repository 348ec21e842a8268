//! What a running exec is told.

use serde::{Deserialize, Serialize};

/// Which signal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignalRequest {
    /// A name with or without SIG (`SIGTERM`, `KILL`), or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = String, required, example = "SIGINT"))]
    pub signal: Option<SignalName>,
}

/// A signal, by name or by number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum SignalName {
    /// 1 to 64.
    Number(i32),
    /// `SIGTERM` or `TERM`.
    Name(String),
}

/// The new size.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResizeRequest {
    /// The height, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = u16))]
    pub rows: Option<u16>,
    /// The width, in characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = u16))]
    pub cols: Option<u16>,
}
