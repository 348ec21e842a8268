//! Named sets of defaults.

use std::borrow::Cow;
use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::hidden::Environment;
use crate::sandboxes::{Capabilities, Network};
use crate::word::Open;

/// A template, with the field names of the SDK and of the Go server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Template {
    /// The name, unique in its tenant.
    pub name: String,
    /// The image.
    pub image: String,
    /// The box-maker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The memory limit, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// The CPU limit, in whole CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    /// The time to live, as a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// The same, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// What root in its sandboxes may do: `standard` or `minimal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Capabilities>))]
    pub capabilities: Option<Open<Capabilities>>,
    /// Labels for every sandbox made from it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Environment variables of every exec in a sandbox made from it. In the log they are sealed.
    #[serde(default, skip_serializing_if = "Environment::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub env: Environment,
    /// The names of more of them, whose values no answer shows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_names: Vec<String>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The client's own number; 1 where it gave none.
    pub version: u32,
    /// `none` or `bridge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Network>))]
    pub network: Option<Open<Network>>,
    /// Shell lines that are run in every sandbox made from it before it counts as running.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Hosts that its sandboxes are meant to reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
    /// When it was saved last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
    /// What of it does not do what one may expect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Cow<'static, str>>,
}

/// A template. Zero and empty mean the server's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = SaveRequest))]
pub struct TemplateRequest {
    /// 1 to 64 characters of a-z, A-Z, 0-9, `.`, `_` and `-`, not beginning with a dot.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub name: Option<String>,
    /// The image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required))]
    pub image: Option<String>,
    /// The box-maker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The memory limit, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// The CPU limit, in whole CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// The same, as the Go server called it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    /// The time to live, as a Go duration of whole seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// The same in seconds, as the Go server called it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// What root in its sandboxes may do: `standard` or `minimal`; the server's default where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^(standard|minimal)?$"))]
    pub capabilities: Option<String>,
    /// Labels for every sandbox made from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Environment variables of every exec.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub env: Option<Environment>,
    /// More of them, whose values are in no answer and are masked with `*` in whatever a sandbox writes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub secrets: Option<Environment>,
    /// One line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A number of your own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// `none` or `bridge`; the server's default where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^(none|bridge)?$"))]
    pub network: Option<String>,
    /// Shell lines that are run in every sandbox made from it before it counts as running. One that does not end with 0 fails
    /// the spawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub setup: Option<Vec<String>>,
    /// Hosts that its sandboxes are meant to reach. They get no network at all; with `"network":"bridge"` it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_hosts: Option<Vec<String>>,
}
