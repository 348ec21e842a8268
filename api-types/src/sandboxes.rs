//! Sandboxes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::hidden::Environment;
use crate::word::{Open, words};

words! {
    /// Where a sandbox stands.
    SandboxState {
        /// It is being made.
        Creating => "creating",
        /// It runs.
        Running => "running",
        /// Its deadline has passed, and it is about to go.
        Expired => "expired",
        /// Its end was asked for.
        Destroying => "destroying",
        /// It is gone.
        Destroyed => "destroyed",
        /// It could not be made.
        Error => "error",
    }
}

words! {
    /// What a sandbox may reach by itself.
    Network {
        /// Loopback only.
        None => "none",
        /// Public addresses.
        Bridge => "bridge",
    }
}

words! {
    /// What root in a sandbox may do.
    Capabilities {
        /// What containers usually have.
        Standard => "standard",
        /// Nothing that ordinary programs do without.
        Minimal => "minimal",
    }
}

/// A sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sandbox {
    /// Its id.
    #[cfg_attr(feature = "openapi", schema(example = "sb-01jd2x5c0pe3tt4m1q5a8z0v9k"))]
    pub id: String,
    /// Where it stands.
    #[cfg_attr(feature = "openapi", schema(value_type = SandboxState))]
    pub state: Open<SandboxState>,
    /// The box-maker.
    pub provider: String,
    /// The pool of executors that it is for.
    #[serde(default)]
    pub pool: String,
    /// The image, as it was asked for.
    pub image: String,
    /// The memory limit, in MiB.
    pub memory_mb: u32,
    /// The CPU limit, in whole CPUs, rounded up.
    pub vcpus: u32,
    /// What it may reach by itself.
    #[cfg_attr(feature = "openapi", schema(value_type = Network))]
    pub network: Open<Network>,
    /// Its address on the provider's bridge, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "172.18.0.2"))]
    pub ip: Option<IpAddr>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// Its deadline. Its time to live counts from when it runs: until then this is the latest that it can be.
    pub expires_at: DateTime<Utc>,
    /// The user who owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<String>,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// The node that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    /// The client's own labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The template that it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// What went wrong, for state `error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a sandbox shall be. Everything has a default; zero and empty mean the default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SpawnRequest {
    /// The image. A named template's image wins over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "alpine:latest"))]
    pub image: Option<String>,
    /// The box-maker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Which executors of that provider; those of the pool that is called as the provider when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// The memory limit, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// The CPU limit; parts of a CPU are allowed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<f64>,
    /// The same, as the Go server called it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<f64>,
    /// The time to live, as a Go duration (`30m`, `1h30m`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// The user who owns it; `X-User-ID` wins over it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<String>,
    /// The template with the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The client's own labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Environment variables of every exec. Their values are in no event and in no log.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub env: Option<Environment>,
    /// More of them, whose values are masked with `*` in whatever the sandbox writes. Each of at least 4 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<BTreeMap<String, String>>))]
    pub secrets: Option<Environment>,
    /// `none` or `bridge`; the template's, else the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Whether the root file system is read-only, with tmpfs on /tmp and /workspace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only_root: Option<bool>,
    /// What root in it may do: `standard` or `minimal`; the template's, else the server's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(pattern = "^(standard|minimal)?$"))]
    pub capabilities: Option<String>,
    /// The container runtime, where the provider has more than one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The greatest number of processes and threads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u32>,
}

impl SpawnRequest {
    /// A sandbox of an image.
    ///
    /// ```
    /// use api_types::SpawnRequest;
    ///
    /// let request = SpawnRequest { memory_mb: Some(512), ..SpawnRequest::image("alpine:latest") };
    /// assert_eq!(serde_json::to_string(&request)?, r#"{"image":"alpine:latest","memory_mb":512}"#);
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    pub fn image(image: impl Into<String>) -> Self {
        Self { image: Some(image.into()), ..Self::default() }
    }

    /// A sandbox of a template.
    pub fn template(name: impl Into<String>) -> Self {
        Self { template: Some(name.into()), ..Self::default() }
    }
}

/// How long it shall live from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ExtendRequest {
    /// A Go duration, counted from now. It may also bring the deadline nearer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(required, example = "30m"))]
    pub ttl: Option<String>,
}
