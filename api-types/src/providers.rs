//! Providers: the box-makers, over all nodes that have them.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::word::{Word, words};

words! {
    /// What not every box-maker can do everywhere.
    ProviderCapability {
        /// Images are fetched when they are missing.
        ImagePull => "image_pull",
        /// A sandbox may have a network.
        Network => "network",
        /// The root file system can be read-only.
        ReadOnlyRoot => "read_only_root",
        /// Limits of memory, processes and CPU take effect.
        Limits => "limits",
        /// What a sandbox uses is counted.
        Stats => "stats",
    }
}

/// A box-maker, over all nodes that have it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Provider {
    /// Its name.
    pub name: String,
    /// Whether some node can make boxes with it.
    pub healthy: bool,
    /// Whether it is the one of a spawn that names none.
    pub default: bool,
    /// How long the last check took on the fastest node, in milliseconds.
    pub latency_ms: u64,
    /// When a node last told of it.
    pub last_checked: DateTime<Utc>,
    /// The pools of executors that have it: a spawn may name one.
    #[serde(default)]
    pub pools: BTreeSet<String>,
    /// What it can do: `image_pull`, `network`, `read_only_root`, `limits`, `stats` where it can; `isolation:` and what keeps its boxes
    /// apart; `runtime:` and each runtime that may be named; and what all can do. A request for what it lacks is refused, and
    /// the refusal names it.
    pub capabilities: BTreeSet<String>,
    /// What is wrong with it: for operators where there are several tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What an operator should know of it: old versions with known holes, what the host does not limit. For operators where there
    /// are several tenants.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub warnings: BTreeSet<String>,
    /// How many boxes it has, over all nodes; where there are several tenants only an operator is told of all, a tenant of
    /// its own live sandboxes.
    pub runtime_count: u32,
}

impl Provider {
    /// Whether it can do this on some node.
    ///
    /// ```
    /// use api_types::{Provider, ProviderCapability};
    ///
    /// let provider: Provider = serde_json::from_str(
    ///     r#"{"name": "docker", "healthy": true, "default": true, "latency_ms": 1, "runtime_count": 0,
    ///         "last_checked": "2026-11-24T17:06:59Z", "capabilities": ["network", "hibernation"]}"#,
    /// )?;
    /// assert!(provider.can(ProviderCapability::Network) && !provider.can(ProviderCapability::ImagePull));
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn can(&self, capability: ProviderCapability) -> bool {
        self.capabilities.contains(capability.as_str())
    }
}

/// A box-maker, with what it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProviderDetail {
    /// As in the list.
    #[serde(flatten)]
    pub provider: Provider,
    /// The tenant's live sandboxes that it made.
    pub sandbox_count: usize,
    /// What may be known of its configuration: `type`, what keeps its boxes apart from the host.
    pub config: BTreeMap<String, String>,
}
