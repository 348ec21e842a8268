//! The event feed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// An event, as server-sent events tell it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventRecord<'a> {
    /// Unique.
    pub id: Cow<'a, str>,
    /// What happened: `sandbox.running`.
    pub r#type: Cow<'a, str>,
    /// Which sandbox it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<Cow<'a, str>>,
    /// When, in UTC.
    pub timestamp: Cow<'a, str>,
    /// Who did it.
    pub actor: Cow<'a, str>,
    /// The request that it follows from: the `X-Request-ID` of whoever asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Cow<'a, str>>,
    /// The details, which depend on the type. Output comes without its bytes.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub data: Cow<'a, RawValue>,
}
