//! How everything stands.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::health::Build;
use crate::providers::Provider;
use crate::quotas::QuotaSummary;
use crate::sandboxes::Network;
use crate::word::{Open, words};

words! {
    /// What a node does.
    WorkerState {
        /// It takes sandboxes.
        Online => "online",
        /// It takes no more, and keeps those that it has.
        Draining => "draining",
    }
}

/// How everything stands, without a secret in it: what to send along with a question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Diagnostics {
    /// When this was put together.
    pub generated_at: DateTime<Utc>,
    /// What runs.
    pub build: Build,
    /// The gateway's process.
    pub process: ProcessHealth,
    /// The event store.
    pub store: PartHealth,
    /// NATS.
    pub transport: PartHealth,
    /// What a spawn gets, and what it may ask for.
    pub limits: SpawnLimits,
    /// The box-makers.
    pub providers: Vec<Provider>,
    /// The nodes that show signs of life: for operators where there are several tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<Workers>,
    /// The tenant's live sandboxes.
    pub sandboxes: SandboxCounts,
    /// The log: for operators where there are several tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<LogHealth>,
    /// Quotas of owners. There are none yet.
    pub quotas: QuotaSummary,
}

/// A process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Process))]
pub struct ProcessHealth {
    /// Since its start, as a Go duration.
    pub uptime: String,
    /// Its resident memory, in bytes; absent where the system does not say, and for all but operators where there are several
    /// tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// Something that the gateway leans on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Part))]
pub struct PartHealth {
    /// Whether it answers.
    pub healthy: bool,
    /// How long the answer took, in milliseconds, where it was asked; for operators where there are several tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
}

/// Defaults and maxima.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Limits))]
pub struct SpawnLimits {
    /// The provider of a spawn that names none.
    pub default_provider: String,
    /// The image of a spawn that names none.
    pub default_image: String,
    /// The network of a spawn that names none.
    #[cfg_attr(feature = "openapi", schema(value_type = Network))]
    pub default_network: Open<Network>,
    /// The time to live of a spawn that names none, as a Go duration.
    pub default_ttl: String,
    /// The greatest time to live, as a Go duration.
    pub max_ttl: String,
    /// When a sync exec that names no timeout is ended, as a Go duration.
    pub default_exec_timeout: String,
    /// The greatest timeout of an exec, as a Go duration.
    pub max_exec_timeout: String,
}

/// Nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Workers {
    /// How many show signs of life.
    pub total: usize,
    /// How many of them take sandboxes.
    pub online: usize,
    /// Each of them.
    pub items: Vec<Worker>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Worker {
    /// Its name.
    pub id: String,
    /// `online` or `draining`.
    #[cfg_attr(feature = "openapi", schema(value_type = WorkerState))]
    pub status: Open<WorkerState>,
    /// How many sandboxes it takes.
    pub capacity: u32,
    /// How many it has.
    pub used: u32,
    /// Its box-makers.
    pub providers: Vec<String>,
    /// When it was heard last.
    pub last_heartbeat: DateTime<Utc>,
}

/// Counts of sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Sandboxes))]
pub struct SandboxCounts {
    /// All.
    pub total: usize,
    /// Those that run.
    pub active: usize,
    /// By state.
    pub by_state: BTreeMap<String, usize>,
    /// By provider.
    pub by_provider: BTreeMap<String, usize>,
    /// By node.
    pub by_worker: BTreeMap<String, usize>,
}

/// Where the log stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Log))]
pub struct LogHealth {
    /// The position of the newest event that this gateway has seen.
    pub head: u64,
    /// How far the recorder is behind, or silent, in seconds.
    pub recorder_lag_seconds: f64,
}
