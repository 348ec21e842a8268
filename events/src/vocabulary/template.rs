//! Templates: named sets of defaults for sandboxes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A named set of defaults. `None` means: the server's default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Template {
    /// The name, unique in its tenant.
    pub name: String,
    /// The image.
    pub image: String,
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
    /// Labels for every sandbox made from it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Environment variables of every exec in a sandbox made from it. They are in the log, so no place for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
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
