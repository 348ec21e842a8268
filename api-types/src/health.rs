//! Probes, and what runs.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::error::ErrorCode;
use crate::word::{Open, words};

words! {
    /// What a server says of itself when it answers a probe.
    ProbeAnswer {
        /// It answers.
        Ok => "ok",
        /// Its process answers.
        Alive => "alive",
        /// It can carry out requests.
        Ready => "ready",
    }
}

words! {
    /// Why a server cannot carry out requests.
    UnreadyReason {
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

words! {
    /// Why a provider does not work, where that has a name.
    ProviderTrouble {
        /// A disk that its sandboxes write on has too little room.
        DiskLow => "disk_low",
        /// The rules that keep sandboxes from private addresses are not in force.
        NetworkRules => "network_rules",
        /// The name server of its sandboxes does not work.
        NetworkNames => "network_names",
    }
}

/// How the gateway is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// `ok`
    #[cfg_attr(feature = "openapi", schema(value_type = ProbeAnswer))]
    pub status: Open<ProbeAnswer>,
    /// Of the server.
    pub version: Cow<'static, str>,
    /// Since its start, as a Go duration.
    pub uptime: String,
}

/// A process that answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Liveness {
    /// `alive`
    #[cfg_attr(feature = "openapi", schema(value_type = ProbeAnswer))]
    pub status: Open<ProbeAnswer>,
    /// Of the server.
    pub version: Cow<'static, str>,
    /// Since its start, as a Go duration.
    pub uptime: String,
}

/// A server that carries out requests, and what of it works. No key is asked for here, so it says no more than that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Readiness {
    /// `ready`
    #[cfg_attr(feature = "openapi", schema(value_type = ProbeAnswer))]
    pub status: Open<ProbeAnswer>,
    /// Of the server.
    pub version: Cow<'static, str>,
    /// Since the start of the gateway, as a Go duration.
    pub uptime: String,
    /// The box-makers.
    pub providers: Vec<ProviderReadiness>,
    /// How many of them work.
    pub ready_providers: usize,
    /// How many there are.
    pub total_providers: usize,
}

/// Whether a box-maker works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ProviderReadiness {
    /// Its name.
    pub name: String,
    /// Whether some node can make boxes with it.
    pub healthy: bool,
    /// Whether it is the one of a spawn that names none.
    pub default: bool,
    /// Why it does not work, where that has a stable name: `disk_low`, `network_rules`, `network_names`. The rest is in the diagnostics.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<ProviderTrouble>))]
    pub reason: Option<Open<ProviderTrouble>>,
    /// When a node last told of it.
    pub last_checked: DateTime<Utc>,
}

/// Why requests cannot be carried out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Unready {
    /// `UNAVAILABLE`
    #[cfg_attr(feature = "openapi", schema(value_type = ErrorCode))]
    pub code: Open<ErrorCode>,
    /// All reasons in one line, for people.
    pub message: String,
    /// Each of them.
    pub reasons: Vec<UnreadyCause>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = Reason))]
pub struct UnreadyCause {
    /// A stable name: `stopping`, `disk_low`, `transport_unreachable`, `transport_leaderless`, `transport_off`,
    /// `transport_full`, `recorder_silent`, `recorder_lag`, `recorder_stalled`, `database_unavailable` or
    /// `database_refuses`.
    #[cfg_attr(feature = "openapi", schema(value_type = UnreadyReason))]
    pub code: Open<UnreadyReason>,
    /// One sentence for people.
    pub message: String,
}

/// What runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Build {
    /// Of the server.
    pub version: Cow<'static, str>,
    /// The operating system.
    pub os: Cow<'static, str>,
    /// The machine.
    pub arch: Cow<'static, str>,
}
