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
    /// Sandboxes of all tenants together that have not ended.
    pub sandboxes: u64,
    /// What each tenant may take.
    pub tenant: TenantLimits,
    /// What these may take instead.
    pub tenants: BTreeMap<TenantId, TenantLimits>,
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
    /// Requests under way, WebSockets among them.
    pub requests: usize,
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
            sandboxes: 0,
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
            requests: 4096,
            memory_bytes: 128 << 20,
        }
    }
}
