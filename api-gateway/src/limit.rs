//! The limits, by name.

use api_types::AdmissionReason;

/// Which limit was reached. Its name is that of the key that sets it, where one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Connections in all, or of one address.
    Connections,
    /// Requests of one key.
    RequestsPerKey,
    /// Bytes of bodies, in all.
    Memory,
    /// Calls under way in one sandbox.
    SandboxCalls,
    /// Sandboxes of all.
    Sandboxes,
    /// A tenant's sandboxes.
    TenantSandboxes,
    /// Those of one owner.
    OwnerSandboxes,
    /// Their CPUs.
    TenantVcpus,
    /// Their memory.
    TenantMemory,
    /// Sandboxes of a tenant that are being made.
    TenantSpawns,
    /// A tenant's execs.
    TenantExecs,
    /// Those in one sandbox.
    SandboxExecs,
    /// What a tenant writes.
    TenantLog,
    /// A tenant's requests.
    TenantRequests,
    /// Those that are streams.
    TenantStreams,
    /// How often a client asks.
    Rate,
    /// How often a tenant asks.
    TenantRate,
    /// Bytes of a tenant's bodies.
    TenantBodies,
    /// What takes long, and is done in turn.
    Turns,
}

impl Limit {
    /// All there are.
    pub const ALL: [Self; 19] = [
        Self::Connections,
        Self::RequestsPerKey,
        Self::Memory,
        Self::SandboxCalls,
        Self::Sandboxes,
        Self::TenantSandboxes,
        Self::OwnerSandboxes,
        Self::TenantVcpus,
        Self::TenantMemory,
        Self::TenantSpawns,
        Self::TenantExecs,
        Self::SandboxExecs,
        Self::TenantLog,
        Self::TenantRequests,
        Self::TenantStreams,
        Self::Rate,
        Self::TenantRate,
        Self::TenantBodies,
        Self::Turns,
    ];

    /// The key that sets it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "limits.connections",
            Self::RequestsPerKey => "limits.requests_per_key",
            Self::Memory => "limits.bodies",
            Self::SandboxCalls => "limits.calls_per_sandbox",
            Self::Sandboxes => "limits.sandboxes",
            Self::TenantSandboxes => "limits.tenant.sandboxes",
            Self::OwnerSandboxes => "limits.tenant.sandboxes_per_owner",
            Self::TenantVcpus => "limits.tenant.vcpus",
            Self::TenantMemory => "limits.tenant.memory_mb",
            Self::TenantSpawns => "limits.tenant.spawns",
            Self::TenantExecs => "limits.tenant.execs",
            Self::SandboxExecs => "limits.tenant.execs_per_sandbox",
            Self::TenantLog => "limits.tenant.log_per_hour",
            Self::TenantRequests => "limits.tenant.requests",
            Self::TenantStreams => "limits.tenant.streams",
            Self::Rate => "limits.rate.requests_per_minute",
            Self::TenantRate => "limits.tenant.requests_per_minute",
            Self::TenantBodies => "limits.tenant.bodies",
            Self::Turns => "turns",
        }
    }

    /// Why a spawn is not let in, as `POST /sandboxes/admission` says it.
    pub const fn admission_reason(self) -> AdmissionReason {
        match self {
            Self::OwnerSandboxes => AdmissionReason::MaxSandboxesPerOwner,
            Self::TenantVcpus => AdmissionReason::MaxVcpus,
            Self::TenantMemory => AdmissionReason::MaxMemory,
            Self::Connections
            | Self::RequestsPerKey
            | Self::Memory
            | Self::SandboxCalls
            | Self::Sandboxes
            | Self::TenantSandboxes
            | Self::TenantSpawns
            | Self::TenantExecs
            | Self::SandboxExecs
            | Self::TenantLog
            | Self::TenantRequests
            | Self::TenantStreams
            | Self::Rate
            | Self::TenantRate
            | Self::TenantBodies
            | Self::Turns => AdmissionReason::MaxSandboxes,
        }
    }
}
