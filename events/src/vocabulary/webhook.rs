//! Webhooks: readers of the log that are called over HTTP.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{EventData, EventId, Position, SandboxId, WebhookId};

words! {
    /// What happens to a webhook.
    Webhook(WebhookEvent) {
        Saved(WebhookSaved) = "webhook.saved" [unsent],
        Deleted(WebhookDeleted) = "webhook.deleted" [unsent],
        Advanced(WebhookAdvanced) = "webhook.advanced" [unsent],
        Failed(WebhookFailed) = "webhook.failed" [unsent],
        Rewound(WebhookRewound) = "webhook.rewound" [unsent],
        Suspended(WebhookSuspended) = "webhook.suspended" [unsent],
        Pinged(WebhookPinged) = "webhook.pinged" [unsent],
        PingEnded(WebhookPingEnded) = "webhook.ping_ended" [unsent],
    }
}

impl WebhookEvent {
    /// Which webhook it is about.
    pub const fn webhook(&self) -> WebhookId {
        match self {
            Self::Saved(data) => data.webhook.id,
            Self::Deleted(WebhookDeleted { webhook })
            | Self::Advanced(WebhookAdvanced { webhook, .. })
            | Self::Failed(WebhookFailed { webhook, .. })
            | Self::Rewound(WebhookRewound { webhook, .. })
            | Self::Suspended(WebhookSuspended { webhook, .. })
            | Self::Pinged(WebhookPinged { webhook })
            | Self::PingEnded(WebhookPingEnded { webhook, .. }) => *webhook,
        }
    }
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// Where events go.
    pub url: String,
    /// Only events of these types; a name that ends in `.*` stands for a category; empty: all but output, input and the
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

impl Webhook {
    /// The types that are delivered. A name that this build does not know selects nothing.
    pub fn wanted_types(&self) -> Vec<&'static str> {
        if self.types.is_empty() {
            return select("*");
        }
        let mut wanted: Vec<&'static str> = self.types.iter().flat_map(|pattern| select(pattern)).collect();
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// The types that a pattern stands for: a name, a category (`sandbox.*`) or all (`*`). Nothing, if it is none of these, or
    /// one that webhooks never get.
    pub fn select(pattern: &str) -> Vec<&'static str> {
        select(pattern)
    }
}

fn select(pattern: &str) -> Vec<&'static str> {
    let all = EventData::WORDS.into_iter().filter(|word| !word.unsent);
    match pattern.strip_suffix('*') {
        None => all.filter(|word| word.name == pattern).map(|word| word.name).collect(),
        Some(prefix) if prefix.is_empty() || prefix.ends_with('.') => all
            .filter(|word| word.name.starts_with(prefix) && !word.by_name_only)
            .map(|word| word.name)
            .collect(),
        Some(_) => Vec::new(),
    }
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
    /// The webhook.
    pub webhook: WebhookId,
}

/// `webhook.advanced`: everything up to here was delivered, or did not match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookAdvanced {
    /// The webhook.
    pub webhook: WebhookId,
    /// The `webhook.saved` or `webhook.rewound` that this delivery follows. What an older delivery says counts no more.
    pub epoch: EventId,
    /// Up to and including this position.
    pub cursor: Position,
    /// How many events were delivered since it was said last.
    pub delivered: u64,
}

/// `webhook.failed`: one attempt to deliver was in vain; it is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookFailed {
    /// The webhook.
    pub webhook: WebhookId,
    /// As in [`WebhookAdvanced`].
    pub epoch: EventId,
    /// The event that could not be delivered.
    pub position: Position,
    /// How often it was tried.
    pub attempts: u32,
    /// What went wrong, in one sentence.
    pub message: String,
    /// When it is tried again.
    pub retry_at: DateTime<Utc>,
}

/// `webhook.rewound`: a client moved the cursor, which also wakes a suspended one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookRewound {
    /// The webhook.
    pub webhook: WebhookId,
    /// Delivery goes on after this position.
    pub cursor: Position,
}

/// `webhook.suspended`: it failed for too long; nothing more is sent until its cursor is moved or it is saved again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookSuspended {
    /// The webhook.
    pub webhook: WebhookId,
    /// As in [`WebhookAdvanced`].
    pub epoch: EventId,
    /// The event that could not be delivered.
    pub position: Position,
    /// How often it was tried.
    pub attempts: u32,
    /// What went wrong last, in one sentence.
    pub message: String,
}

/// `webhook.pinged`: a client asks for a test. The event itself is what is sent, to this webhook alone, once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookPinged {
    /// The webhook.
    pub webhook: WebhookId,
}

/// `webhook.ping_ended`: what came of a test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookPingEnded {
    /// The webhook.
    pub webhook: WebhookId,
    /// The `webhook.pinged`.
    pub ping: EventId,
    /// What the receiver answered; none when there was no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What went wrong; none when it was delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(types: &[&str]) -> Vec<&'static str> {
        Webhook {
            id: WebhookId::from_bytes([1; 16]),
            url: String::new(),
            types: types.iter().map(|name| (*name).to_owned()).collect(),
            sandbox: None,
            sealed_secret: String::new(),
            description: String::new(),
        }
        .wanted_types()
    }

    #[test]
    fn a_star_means_neither_output_nor_the_webhooks_own_events() {
        for types in [&[][..], &["*"]] {
            let wanted = wanted(types);
            assert!(wanted.contains(&"sandbox.running") && wanted.contains(&"exec.exited"));
            assert!(!wanted.iter().any(|name| name.starts_with("webhook.")));
            for never in ["exec.output", "exec.input", "audit.checkpoint"] {
                assert!(!wanted.contains(&never), "{never}");
            }
        }
        assert!(!wanted(&["exec.*"]).contains(&"exec.output"));
        assert_eq!(wanted(&["exec.output"]), ["exec.output"]);
    }

    #[test]
    fn a_category_is_all_its_types_and_each_counts_once() {
        assert_eq!(wanted(&["template.*", "template.saved"]), ["template.deleted", "template.saved"]);
    }

    #[test]
    fn what_is_no_type_or_never_sent_selects_nothing() {
        for pattern in [
            "",
            "sandbox",
            "sand*",
            "sandbox.run*",
            "nothing.*",
            "webhook.*",
            "webhook.saved",
            "audit.checkpoint",
        ] {
            assert_eq!(Webhook::select(pattern), Vec::<&str>::new(), "{pattern}");
        }
    }
}
