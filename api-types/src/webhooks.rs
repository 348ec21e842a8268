//! Readers of the log that are called over HTTP.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::hidden::Hidden;
use crate::word::{Open, words};

words! {
    /// How a webhook is doing.
    WebhookState {
        /// What is due is delivered.
        Active => "active",
        /// An event is being tried again.
        Failing => "failing",
        /// It failed for too long, and nothing is sent.
        Suspended => "suspended",
    }
}

/// A webhook and how it is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Webhook {
    /// Unique.
    pub id: String,
    /// Where events go.
    pub url: String,
    /// Which events; empty: all but output, input and the webhooks' own.
    pub types: Vec<String>,
    /// Only events of this sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// What its owner calls it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// `active`, `failing` (an event is being tried again), `suspended` (it failed for too long, nothing is sent).
    #[cfg_attr(feature = "openapi", schema(value_type = WebhookState))]
    pub state: Open<WebhookState>,
    /// Everything up to this position was delivered, or did not match. About a second old.
    pub cursor: u64,
    /// 0 when nothing waits; else how many positions there are from the oldest event that waits to the end of the log.
    pub lag: u64,
    /// When it was made.
    pub created_at: String,
    /// When something was last delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<String>,
    /// How often the oldest event that waits was tried.
    pub attempts: u32,
    /// What went wrong last, while it has not been mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Since when it fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<String>,
    /// Since when it is suspended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspended_at: Option<String>,
    /// The signing secret: only in the answer to the request that made or changed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub secret: Option<Hidden>,
}

/// A webhook to be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebhookRequest {
    /// `https://...`, without user and fragment, at most 2048 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub url: Option<String>,
    /// Names of events (`exec.exited`), categories (`sandbox.*`) or `*`. None: all but output, input and the webhooks' own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub types: Option<Vec<String>>,
    /// Only events of this sandbox.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// What it is called; at most 1024 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The signing secret: `whsec_` and the base 64 of 24 to 64 bytes. Made for a new one that brings none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub secret: Option<Hidden>,
    /// The position of the first event that is sent, or `now`. Only for a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    pub from: Option<Value>,
}

/// Where to go on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RedeliverRequest {
    /// The position of the first event that is sent, or `now` to skip what waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required, value_type = Object))]
    pub from: Option<Value>,
}

/// What came of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Ping))]
pub struct WebhookPing {
    /// The event that was sent.
    pub event: String,
    /// Whether the receiver took it.
    pub delivered: bool,
    /// What it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}
