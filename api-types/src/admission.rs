//! Whether a spawn would be let in, what sandboxes use, and how many were removed.

use serde::{Deserialize, Serialize};

use crate::word::{Open, words};

words! {
    /// Why a spawn would not be let in.
    AdmissionReason {
        /// It would be.
        None => "",
        /// It asks for a longer time to live than there is.
        MaxTtl => "max_ttl",
        /// The tenant has as many sandboxes as it may have.
        MaxSandboxes => "max_sandboxes",
        /// Its owner has.
        MaxSandboxesPerOwner => "max_sandboxes_per_owner",
        /// The tenant has as many CPUs as it may have.
        MaxVcpus => "max_vcpus",
        /// The tenant has as much memory as it may have.
        MaxMemory => "max_memory",
        /// No node has room for it, or none has the provider.
        WorkerUnavailable => "worker_unavailable",
        /// It is about to end.
        Stopping => "stopping",
        /// A disk that it writes on has too little room.
        DiskLow => "disk_low",
        /// NATS does not answer.
        TransportUnreachable => "transport_unreachable",
        /// The NATS cluster has no leader.
        TransportLeaderless => "transport_leaderless",
        /// JetStream is switched off.
        TransportOff => "transport_off",
        /// JetStream has no room, or takes nothing more.
        TransportFull => "transport_full",
        /// The recorder has said nothing for too long.
        RecorderSilent => "recorder_silent",
        /// The recorder is too far behind.
        RecorderLag => "recorder_lag",
        /// The recorder says that it lives, and records nothing.
        RecorderStalled => "recorder_stalled",
        /// Another recorder works, and this one's turn is over.
        RecorderConflict => "recorder_conflict",
        /// The event store does not answer.
        DatabaseUnavailable => "database_unavailable",
        /// The event store takes nothing: it is full, or may only be read.
        DatabaseRefuses => "database_refuses",
    }
}

/// Whether a spawn would be let in. Exactly these fields: the SDK takes no other. A maximum of 0 means that there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Admission {
    /// Whether it would be.
    pub allowed: bool,
    /// Whether it would wait in a queue instead.
    pub queueable: bool,
    /// Why not: `max_ttl`, `max_sandboxes`, `max_sandboxes_per_owner`, `max_vcpus`, `max_memory`, `worker_unavailable`,
    /// `disk_low`, or what `/ready` says of the transport and the recorder; else empty.
    #[cfg_attr(feature = "openapi", schema(value_type = AdmissionReason))]
    pub reason: Open<AdmissionReason>,
    /// Live sandboxes of the tenant.
    pub active_sandboxes: u64,
    /// How many it may have.
    pub max_sandboxes: u64,
    /// Live sandboxes of the owner.
    pub active_owner_sandboxes: u64,
    /// How many the owner may have.
    pub max_owner_sandboxes: u64,
    /// The greatest time to live, as a Go duration.
    pub max_ttl: String,
}

/// What a sandbox uses.
#[derive(Debug, Clone, Default, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Stats))]
pub struct SandboxStats {
    /// Whether the provider can tell.
    pub supported: bool,
    /// CPU time of the last moment, in percent of one CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pct: Option<f64>,
    /// Memory, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_bytes: Option<u64>,
    /// The memory limit, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mem_limit_bytes: Option<u64>,
}

/// What prune did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Pruned {
    /// How many it removed.
    pub pruned: usize,
}
