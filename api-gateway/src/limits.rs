//! How much one tenant, one address and everybody together may take.

use std::collections::BTreeMap;

use events::TenantId;

/// What the gateway lets others take. A limit of 0 is none.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections in all.
    pub connections: usize,
    /// Open connections of one address; of an IPv6 network, all of its addresses together.
    pub connections_per_address: usize,
    /// Connections beyond both, for health routes and for the operator.
    pub reserved_connections: usize,
    /// Requests that one key may have under way.
    pub requests_per_key: usize,
    /// How many bytes of bodies may be in memory at once, in all. What is parsed counts twice.
    pub memory_bytes: usize,
    /// Execs, file operations and other calls that may be under way in one sandbox.
    pub calls_per_sandbox: usize,
    /// Sandboxes of all tenants together that have not ended.
    pub sandboxes: u64,
    /// How often clients may ask, told apart by more than their tenant.
    pub rate: RateLimit,
    /// What each tenant may take.
    pub tenant: TenantLimits,
    /// What these may take instead.
    pub tenants: BTreeMap<TenantId, TenantLimits>,
}

/// How often clients may ask.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Who is one client.
    pub by: RateBy,
    /// Requests a minute.
    pub a_minute: u32,
    /// Requests that may come at once after a rest.
    pub burst: u32,
}

/// By what clients are told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateBy {
    /// By their key.
    #[default]
    Key,
    /// By the user that they name.
    Owner,
    /// By their address.
    Address,
}

/// What one tenant may take. A limit of 0 is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantLimits {
    /// Sandboxes that have not ended.
    pub sandboxes: u64,
    /// Those of one owner.
    pub sandboxes_per_owner: u64,
    /// Their CPU limits together, in thousandths of one CPU.
    pub cpu_millis: u64,
    /// Their memory limits together, in MiB.
    pub memory_mib: u64,
    /// Sandboxes that are being made at once; more of them wait for their turn.
    pub spawns: usize,
    /// Execs that have not ended.
    pub execs: usize,
    /// Those in one sandbox.
    pub execs_per_sandbox: usize,
    /// Bytes that may be added to its log within an hour before no more is begun.
    pub log_bytes: u64,
    /// Requests under way, WebSockets among them.
    pub requests: usize,
    /// Those of them whose answers are streams.
    pub streams: usize,
    /// Requests a minute.
    pub requests_per_minute: u32,
    /// Requests that may come at once after a rest.
    pub burst: u32,
    /// How many bytes of bodies may be in memory at once. What is parsed counts twice.
    pub memory_bytes: usize,
}

impl Limits {
    /// Those of a tenant.
    pub fn of(&self, tenant: &TenantId) -> &TenantLimits {
        self.tenants.get(tenant).unwrap_or(&self.tenant)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_address: 6144,
            reserved_connections: 32,
            requests_per_key: 4096,
            memory_bytes: 160 << 20,
            calls_per_sandbox: 256,
            sandboxes: 0,
            rate: RateLimit::default(),
            tenant: TenantLimits::default(),
            tenants: BTreeMap::new(),
        }
    }
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            sandboxes: 100,
            sandboxes_per_owner: 0,
            cpu_millis: 128_000,
            memory_mib: 64 * 1024,
            spawns: 8,
            execs: 1000,
            execs_per_sandbox: 512,
            log_bytes: 64 << 30,
            requests: 4096,
            streams: 2048,
            requests_per_minute: 60_000,
            burst: 2000,
            memory_bytes: 128 << 20,
        }
    }
}
