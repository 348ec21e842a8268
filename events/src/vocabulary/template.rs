//! Templates: named sets of defaults for sandboxes.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{CapabilitySet, Network};

words! {
    /// What happens to a template.
    Template(TemplateEvent) {
        Saved(TemplateSaved) = "template.saved",
        Deleted(TemplateDeleted) = "template.deleted",
    }
}

/// A named set of defaults. `None` means: the server's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The name, unique in its tenant.
    pub name: String,
    /// The image.
    pub image: String,
    /// The client's own number of the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Shell lines that are run in every sandbox made from it before it counts as running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Hosts that its sandboxes are meant to reach. Nothing enforces it, so such sandboxes get no network at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<String>,
    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
    /// When it was saved last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
    /// The box-maker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The memory limit, in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// The CPU limit, in whole CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// The time to live, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// What root in its sandboxes may do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilitySet>,
    /// Labels for every sandbox made from it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Environment variables in clear: only in events from before they were sealed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables of every exec in a sandbox made from it, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, SealedVariable>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// The value of an environment variable as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedVariable {
    /// The value, sealed under the master key for its tenant, template and name.
    pub sealed: String,
    /// A keyed fingerprint of the value.
    pub hmac: String,
    /// Whether it is a secret, which no answer shows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secret: bool,
}

/// `template.saved`: made, or replaced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateSaved {
    /// All of it.
    pub template: Template,
}

/// `template.deleted`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TemplateDeleted {
    /// Its name.
    pub name: String,
}
