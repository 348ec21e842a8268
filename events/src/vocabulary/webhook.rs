//! Webhooks: readers of the log that are called over HTTP.

use serde::{Deserialize, Serialize};

use crate::{Position, SandboxId, WebhookId};

/// A subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Webhook {
    /// Which one.
    pub id: WebhookId,
    /// Where events go.
    pub url: String,
    /// Only events of these types; a name that ends in `.*` stands for a category; empty: all but output and the
    /// webhooks' own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Only events of this sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxId>,
    /// The signing secret, sealed under the master key.
    pub sealed_secret: String,
    /// What the owner calls it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// `webhook.saved`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookSaved {
    /// The subscription as it is from now on.
    pub webhook: Webhook,
    /// Where it begins, when it is new.
    pub cursor: Position,
}

/// `webhook.deleted`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookDeleted {
    /// Which one.
    pub webhook: WebhookId,
}

/// `webhook.advanced`: everything up to here was delivered, or did not match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookAdvanced {
    /// Which one.
    pub webhook: WebhookId,
    /// Up to and including this position.
    pub cursor: Position,
}

/// `webhook.rewound`: a client moved the cursor, which also wakes a suspended one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookRewound {
    /// Which one.
    pub webhook: WebhookId,
    /// Delivery goes on after this position.
    pub cursor: Position,
}

/// `webhook.suspended`: it failed for too long; nothing more is sent until its cursor is moved.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookSuspended {
    /// Which one.
    pub webhook: WebhookId,
    /// The event that could not be delivered.
    pub position: Position,
    /// How often it was tried.
    pub attempts: u32,
    /// What went wrong last, in one sentence.
    pub message: String,
}
