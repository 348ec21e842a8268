//! The server itself: pools, prepared machines, numbers, the machine under it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Whether machines are shared between users. Here every sandbox is its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolStatus {
    /// Always false.
    pub enabled: bool,
}

/// A prepared machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Snapshot {
    /// The image that it was made from.
    pub image: String,
    /// The box-maker.
    pub provider: String,
}

/// A few numbers, for people and scripts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Metrics {
    /// Since the start of the gateway.
    pub uptime_seconds: f64,
    /// The tenant's live sandboxes.
    pub sandboxes_live: usize,
    /// The same, by state.
    pub sandboxes_by_state: BTreeMap<String, usize>,
    /// Whether the transport is connected.
    pub nats_connected: bool,
    /// Nodes that show signs of life. This and what follows is of the whole deployment: for operators where there are several
    /// tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes_live: Option<usize>,
    /// Sandboxes that all of them take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u64>,
    /// How many they have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<u64>,
    /// The position of the newest event that this gateway has seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feed_head: Option<u64>,
    /// How far the recorder is behind, or silent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recorder_lag_seconds: Option<f64>,
}

/// How busy the machine of the gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostStats {
    /// Share of all CPUs, in percent, over a tenth of a second.
    pub cpu_pct: f64,
    /// Memory that is not available, in percent.
    pub mem_pct: f64,
    /// Of the root file system, in percent.
    pub disk_pct: f64,
    /// Bytes a second that all interfaces but loopback receive.
    pub net_rx_bps: f64,
    /// The same, sent.
    pub net_tx_bps: f64,
    /// Load average of a minute.
    pub load1: f64,
}
