//! From the configuration file to what the gateway is told.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use api_gateway::{ApiKey, AuditLimits, ExecLimits, GatewayConfig, Role, SandboxLimits, WebhookLimits};
use events::{ProviderName, TenantId};
use sha2::{Digest, Sha256};

use crate::config::{AuthConfig, Config, GoDuration};

/// What the gateway is told. `default` is the provider of sandboxes that name none, where the configuration does not
/// say.
pub fn gateway_config(
    config: &Config,
    address: SocketAddr,
    known: BTreeSet<ProviderName>,
    default: Option<ProviderName>,
) -> anyhow::Result<GatewayConfig> {
    let defaults = &config.defaults;
    let base = SandboxLimits::default();
    let configured = match &config.providers.default {
        Some(name) => {
            let name: ProviderName = name.parse().with_context(|| format!("providers.default: {name:?}"))?;
            if !known.contains(&name) {
                let names: Vec<_> = known.iter().map(ProviderName::as_str).collect();
                bail!(
                    "providers.default: {name} is not one of the providers that are on ({})",
                    names.join(", ")
                );
            }
            Some(name)
        }
        None => default,
    };
    Ok(GatewayConfig {
        keys: super::keys(config, address)?,
        master_key: super::master_key(config)?,
        redaction: super::redaction(config)?,
        webhooks: WebhookLimits {
            addresses: super::webhooks::addresses(config)?,
            allow_http: config.webhooks.allow_http,
            ..WebhookLimits::default()
        },
        sandboxes: SandboxLimits {
            default_provider: configured.unwrap_or(base.default_provider),
            known_providers: known,
            default_image: defaults.image.clone(),
            images: super::images::image_policy(config)?,
            capabilities: defaults.capabilities,
            default_network: defaults.network,
            default_ttl: defaults.ttl.0,
            max_ttl: defaults.max_ttl.0,
            max_lifetime: defaults.max_lifetime.0.max(defaults.max_ttl.0),
            max_queue_wait: defaults.max_queue_wait.0,
            default_memory_mib: defaults.memory_mb,
            max_memory_mib: config.limits.max_memory_mb,
            max_cpu_millis: config.limits.max_vcpus.saturating_mul(1000),
            default_cpu_millis: defaults.vcpus.saturating_mul(1000),
            default_pids: defaults.pids_limit,
            ..SandboxLimits::default()
        },
        execs: ExecLimits {
            default_sync_timeout: defaults.default_exec_timeout.0,
            max_timeout: defaults.max_exec_timeout.0,
            ..ExecLimits::default()
        },
        slow_reader_limit: limit(config.server.slow_reader_limit, "server.slow_reader_limit")?,
        stalled_client_limit: limit(config.server.stalled_client_limit, "server.stalled_client_limit")?,
        max_upload_bytes: config.server.max_upload.map(|limit| limit.0),
        allowed_origins: config.server.allowed_origins.iter().map(|origin| origin.0.clone()).collect(),
        disk: super::disk_floor(config, []),
        objects: super::artifacts::readable(config),
        limits: config.limits.limits(executor::raise_descriptor_limit())?,
        audit: AuditLimits {
            max_lag: config.audit.max_lag.0,
            public_key_file: Some(super::audit::public_keys(config)?),
            checkpoint_file: Some(super::audit::checkpoint_file(config)),
        },
        ..GatewayConfig::default()
    })
}

/// Nobody can do anything in no time.
fn limit(limit: GoDuration, key: &str) -> anyhow::Result<Duration> {
    if limit.0.is_zero() {
        bail!("{key}: must be longer than nothing");
    }
    Ok(limit.0)
}

/// The keys, hashed; plain ones are not kept.
pub fn keys(auth: &AuthConfig) -> anyhow::Result<Vec<ApiKey>> {
    if auth.enabled == Some(false) {
        return Ok(Vec::new());
    }
    let mut keys = Vec::new();
    for (id, key) in [("default", &auth.api_key), ("admin", &auth.admin_api_key)] {
        if let Some(key) = key.as_ref().map(|key| key.text()).filter(|key| !key.is_empty()) {
            keys.push(ApiKey {
                id: id.parse().context("key id")?,
                tenant: TenantId::default_tenant(),
                role: if id == "admin" { Role::DeploymentAdmin } else { Role::Member },
                sha256: Sha256::digest(key.as_bytes()).into(),
            });
        }
    }
    for key in &auth.keys {
        if key.tenant == TenantId::system().as_str() {
            bail!("auth.keys: the tenant of {:?} is reserved for the system itself", key.id);
        }
        let hash = parse_hash(&key.sha256)
            .with_context(|| format!("auth.keys: sha256 of {:?} is not 64 hexadecimal digits", key.id))?;
        let role = match (key.admin, key.read_only) {
            (true, true) => bail!("auth.keys: {:?} is either admin or read_only", key.id),
            (true, false) => Role::DeploymentAdmin,
            (false, true) => Role::Reader,
            (false, false) => Role::Member,
        };
        keys.push(ApiKey {
            id: key.id.parse().with_context(|| format!("auth.keys: id {:?}", key.id))?,
            tenant: key.tenant.parse().with_context(|| format!("auth.keys: tenant {:?}", key.tenant))?,
            role,
            sha256: hash,
        });
    }
    if auth.enabled == Some(true) && keys.is_empty() {
        bail!("auth.enabled: is true, but there is no key");
    }
    Ok(keys)
}

fn parse_hash(text: &str) -> Option<[u8; 32]> {
    text.parse::<events::ChainHash>().ok().map(|hash| hash.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KeyConfig;

    #[test]
    fn a_limit_of_nothing_is_an_error_that_names_its_key() {
        let error = limit(GoDuration(Duration::ZERO), "server.stalled_client_limit").unwrap_err();
        assert!(error.to_string().starts_with("server.stalled_client_limit:"), "{error}");
    }

    #[test]
    fn a_key_has_one_role() {
        let auth = |admin, read_only| AuthConfig {
            enabled: None,
            api_key: None,
            admin_api_key: None,
            keys: vec![KeyConfig {
                id: "k1".to_owned(),
                tenant: "red".to_owned(),
                sha256: "ab".repeat(32),
                admin,
                read_only,
            }],
        };
        let role = |admin, read_only| keys(&auth(admin, read_only)).map(|keys| keys[0].role);
        assert_eq!(role(false, false).unwrap(), Role::Member);
        assert_eq!(role(false, true).unwrap(), Role::Reader);
        assert_eq!(role(true, false).unwrap(), Role::DeploymentAdmin);
        let both = role(true, true).unwrap_err().to_string();
        assert!(both.contains("\"k1\" is either admin or read_only"), "{both}");
    }
}
