//! The keys that say how much others may take. 0 is no limit.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use api_gateway::{Limits, RateBy, RateLimit, TenantLimits};
use serde::{Deserialize, Serialize};

use super::values::Bytes;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsConfig {
    /// Open connections in all. None: as many as half of the descriptors, 8192 at most.
    pub connections: Option<u32>,
    /// Open connections of one address. None: three quarters of all.
    pub connections_per_address: Option<u32>,
    /// Connections beyond both, for health routes and operators.
    pub reserved_connections: u32,
    /// Requests of one key that are under way.
    pub requests_per_key: u32,
    /// How much of bodies may be in memory at once.
    pub bodies: Bytes,
    /// Calls that are under way in one sandbox.
    pub calls_per_sandbox: u32,
    /// The greatest memory of one sandbox, in MiB.
    pub max_memory_mb: u32,
    /// The most CPUs of one sandbox.
    pub max_vcpus: u32,
    /// Sandboxes of all tenants together.
    pub sandboxes: u32,
    /// How often clients may ask.
    pub rate: RateConfig,
    /// What each tenant may take.
    pub tenant: TenantLimitsConfig,
    /// What these may take instead.
    pub tenants: Vec<TenantConfig>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateConfig {
    /// By what clients are told apart: `key`, `owner` or `address`.
    pub by: RateBy,
    /// Requests a minute.
    pub requests_per_minute: u32,
    /// Requests that may come at once after a rest.
    pub burst: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantLimitsConfig {
    /// Sandboxes that have not ended.
    pub sandboxes: u32,
    /// Those of one owner.
    pub sandboxes_per_owner: u32,
    /// Their CPUs together.
    pub vcpus: u32,
    /// Their memory together, in MiB.
    pub memory_mb: u32,
    /// Sandboxes that are being made at once.
    pub spawns: u32,
    /// Execs that have not ended.
    pub execs: u32,
    /// Those in one sandbox.
    pub execs_per_sandbox: u32,
    /// Requests whose answers are streams.
    pub streams: u32,
    /// Requests a minute.
    pub requests_per_minute: u32,
    /// Requests that may come at once after a rest.
    pub burst: u32,
    /// How much may be added to its log within an hour before no more is begun.
    pub log_per_hour: Bytes,
    /// Requests that are under way.
    pub requests: u32,
    /// How much of bodies may be in memory at once.
    pub bodies: Bytes,
}

/// A tenant that may take something else than the others. What is not said is as for them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantConfig {
    pub tenant: String,
    pub sandboxes: Option<u32>,
    pub sandboxes_per_owner: Option<u32>,
    pub vcpus: Option<u32>,
    pub memory_mb: Option<u32>,
    pub spawns: Option<u32>,
    pub execs: Option<u32>,
    pub execs_per_sandbox: Option<u32>,
    pub streams: Option<u32>,
    pub requests_per_minute: Option<u32>,
    pub burst: Option<u32>,
    pub log_per_hour: Option<Bytes>,
    pub requests: Option<u32>,
    pub bodies: Option<Bytes>,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            connections: None,
            connections_per_address: None,
            reserved_connections: number(limits.reserved_connections),
            requests_per_key: number(limits.requests_per_key),
            bodies: Bytes(limits.memory_bytes as u64),
            calls_per_sandbox: number(limits.calls_per_sandbox),
            max_memory_mb: api_gateway::SandboxLimits::default().max_memory_mib,
            max_vcpus: api_gateway::SandboxLimits::default().max_cpu_millis / 1000,
            sandboxes: 0,
            rate: RateConfig { by: RateBy::Key, requests_per_minute: 0, burst: 30 },
            tenant: TenantLimitsConfig::default(),
            tenants: Vec::new(),
        }
    }
}

impl Default for TenantLimitsConfig {
    fn default() -> Self {
        let limits = TenantLimits::default();
        Self {
            sandboxes: number(limits.sandboxes),
            sandboxes_per_owner: number(limits.sandboxes_per_owner),
            vcpus: number(limits.cpu_millis / 1000),
            memory_mb: number(limits.memory_mib),
            spawns: number(limits.spawns),
            execs: number(limits.execs),
            execs_per_sandbox: number(limits.execs_per_sandbox),
            streams: number(limits.streams),
            requests_per_minute: number(limits.requests_per_minute),
            burst: number(limits.burst),
            log_per_hour: Bytes(limits.log_bytes),
            requests: number(limits.requests),
            bodies: Bytes(limits.memory_bytes as u64),
        }
    }
}

fn number<T: TryInto<u32>>(number: T) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

fn bytes(bytes: Bytes) -> usize {
    usize::try_from(bytes.0).unwrap_or(usize::MAX)
}

/// A limit on what takes descriptors: as configured, and at most one part in so many of those that the process may have. 0 is no
/// limit, where the process has none.
fn share(configured: usize, descriptors: Option<u64>, part: u64) -> usize {
    let Some(all) = descriptors else { return configured };
    let most = usize::try_from((all / part).max(1)).unwrap_or(usize::MAX);
    if configured == 0 { most } else { configured.min(most) }
}

impl LimitsConfig {
    /// What the gateway is told, in a process that may have so many files open.
    pub fn limits(&self, descriptors: Option<u64>) -> anyhow::Result<Limits> {
        if self.max_memory_mb < 8 || self.max_vcpus == 0 {
            bail!("limits.max_memory_mb: must be at least 8, and limits.max_vcpus at least 1");
        }
        let most = Limits::default().connections;
        let half = descriptors.map_or(most, |all| usize::try_from(all / 2).unwrap_or(most));
        let connections = match self.connections {
            None => most.min(half),
            Some(connections) => share(connections as usize, descriptors, 2),
        };
        let of_address = self.connections_per_address.map_or(connections * 3 / 4, |most| most as usize);
        let mut tenants = BTreeMap::new();
        for tenant in &self.tenants {
            let name = tenant
                .tenant
                .parse()
                .with_context(|| format!("limits.tenants: {:?} is no tenant", tenant.tenant))?;
            if tenants.insert(name, self.tenant.with(tenant).limits(descriptors)).is_some() {
                bail!("limits.tenants: {:?} is there twice", tenant.tenant);
            }
        }
        Ok(Limits {
            connections,
            connections_per_address: of_address,
            reserved_connections: self.reserved_connections as usize,
            requests_per_key: share(self.requests_per_key as usize, descriptors, 4),
            memory_bytes: bytes(self.bodies),
            calls_per_sandbox: share(self.calls_per_sandbox as usize, descriptors, 16),
            sandboxes: self.sandboxes.into(),
            rate: RateLimit {
                by: self.rate.by,
                a_minute: self.rate.requests_per_minute,
                burst: self.rate.burst,
            },
            tenant: self.tenant.limits(descriptors),
            tenants,
        })
    }
}

impl TenantLimitsConfig {
    fn with(&self, own: &TenantConfig) -> Self {
        Self {
            sandboxes: own.sandboxes.unwrap_or(self.sandboxes),
            sandboxes_per_owner: own.sandboxes_per_owner.unwrap_or(self.sandboxes_per_owner),
            vcpus: own.vcpus.unwrap_or(self.vcpus),
            memory_mb: own.memory_mb.unwrap_or(self.memory_mb),
            spawns: own.spawns.unwrap_or(self.spawns),
            execs: own.execs.unwrap_or(self.execs),
            execs_per_sandbox: own.execs_per_sandbox.unwrap_or(self.execs_per_sandbox),
            streams: own.streams.unwrap_or(self.streams),
            requests_per_minute: own.requests_per_minute.unwrap_or(self.requests_per_minute),
            burst: own.burst.unwrap_or(self.burst),
            log_per_hour: own.log_per_hour.unwrap_or(self.log_per_hour),
            requests: own.requests.unwrap_or(self.requests),
            bodies: own.bodies.unwrap_or(self.bodies),
        }
    }

    fn limits(&self, descriptors: Option<u64>) -> TenantLimits {
        TenantLimits {
            sandboxes: self.sandboxes.into(),
            sandboxes_per_owner: self.sandboxes_per_owner.into(),
            cpu_millis: u64::from(self.vcpus) * 1000,
            memory_mib: self.memory_mb.into(),
            spawns: self.spawns as usize,
            execs: share(self.execs as usize, descriptors, 8),
            execs_per_sandbox: share(self.execs_per_sandbox as usize, descriptors, 16),
            streams: share(self.streams as usize, descriptors, 4),
            requests_per_minute: self.requests_per_minute,
            burst: self.burst,
            log_bytes: self.log_per_hour.0,
            requests: share(self.requests as usize, descriptors, 4),
            memory_bytes: bytes(self.bodies),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_tenant_is_not_given_it_has_as_the_others() {
        let own = serde_json::json!({"tenant": "red", "sandboxes": 7, "vcpus": 0});
        let config =
            LimitsConfig { tenants: vec![serde_json::from_value(own).unwrap()], ..LimitsConfig::default() };
        let limits = config.limits(Some(1 << 20)).unwrap();
        let red = limits.of(&"red".parse().unwrap());
        assert_eq!((red.sandboxes, red.cpu_millis), (7, 0));
        assert_eq!(red.memory_mib, TenantLimits::default().memory_mib);
        assert_eq!(*limits.of(&"blue".parse().unwrap()), TenantLimits::default());
        assert_eq!(LimitsConfig::default().limits(None).unwrap().connections, Limits::default().connections);
    }

    #[test]
    fn what_takes_descriptors_leaves_some_for_the_work() {
        let config =
            LimitsConfig { connections: Some(8000), calls_per_sandbox: 0, ..LimitsConfig::default() };
        for limits in [config.limits(Some(512)).unwrap(), LimitsConfig::default().limits(Some(512)).unwrap()]
        {
            assert_eq!((limits.connections, limits.connections_per_address), (256, 192));
            assert_eq!((limits.requests_per_key, limits.calls_per_sandbox), (128, 32));
            let tenant = &limits.tenant;
            assert_eq!((tenant.requests, tenant.streams), (128, 128));
            assert_eq!((tenant.execs, tenant.execs_per_sandbox), (64, 32));
        }
        let few = LimitsConfig { calls_per_sandbox: 3, ..LimitsConfig::default() };
        assert_eq!(few.limits(Some(512)).unwrap().calls_per_sandbox, 3);
        assert_eq!(config.limits(None).unwrap().calls_per_sandbox, 0);
    }

    #[test]
    fn a_tenant_is_named_once_and_well() {
        let twice = |names: [&str; 2]| {
            let own = |name: &str| serde_json::from_value(serde_json::json!({ "tenant": name })).unwrap();
            LimitsConfig { tenants: names.map(own).to_vec(), ..LimitsConfig::default() }.limits(None)
        };
        assert!(twice(["red", "red"]).unwrap_err().to_string().contains("limits.tenants"));
        assert!(twice(["red", "a b"]).is_err());
        assert!(twice(["red", "blue"]).is_ok());
    }
}
