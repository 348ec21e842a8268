//! Templates: named sets of defaults for sandboxes.

pub mod delete;
pub mod get;
pub mod list;
pub mod replace;
pub mod save;
pub mod sealed;
pub mod spawn;

use std::collections::BTreeMap;
use std::time::Duration;

use api_types::{Capabilities, Template};
use events::{CapabilitySet, EventId, TenantId};
use feed::FeedReader;
use spelling::format_go_duration;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::gateway::Gateway;
use crate::routes::sandboxes;

/// How long a change may take to be recorded.
const RECORD_PATIENCE: Duration = Duration::from_secs(20);

/// What a template with `allowed_hosts` is told.
const HOSTS_WARNING: &str =
    "allowed_hosts is not enforced host by host: sandboxes of this template get no network at all";

/// A template as its tenant sees it: of its variables those that are no secrets.
fn shown(template: events::Template, gateway: &Gateway, tenant: &TenantId) -> Template {
    let env = sealed::shown(gateway, tenant, &template);
    with(template, env)
}

fn with(template: events::Template, env: BTreeMap<String, String>) -> Template {
    let secrets = template.variables.into_iter().filter(|(_, variable)| variable.secret);
    Template {
        name: template.name,
        image: template.image,
        provider: template.provider,
        memory_mb: template.memory_mib,
        vcpus: template.vcpus,
        cpu_cores: template.vcpus,
        ttl: template.ttl_seconds.map(|seconds| format_go_duration(Duration::from_secs(seconds))),
        ttl_seconds: template.ttl_seconds,
        capabilities: template.capabilities.map(|set| capabilities(set).into()),
        metadata: template.metadata,
        env: env.into(),
        secret_names: secrets.map(|(name, _)| name).collect(),
        description: template.description,
        version: template.version.unwrap_or(1),
        network: template.network.map(|network| sandboxes::network(network).into()),
        setup: template.setup,
        warnings: if template.allowed_hosts.is_empty() { Vec::new() } else { vec![HOSTS_WARNING.into()] },
        allowed_hosts: template.allowed_hosts,
        created_at: template.created_at,
        updated_at: template.updated_at,
    }
}

const fn capabilities(set: CapabilitySet) -> Capabilities {
    match set {
        CapabilitySet::Standard => Capabilities::Standard,
        CapabilitySet::Minimal => Capabilities::Minimal,
    }
}

/// There is no such template, or it is another tenant's.
pub(crate) fn no_template(name: &str) -> ApiError {
    ApiError::absent("template", name)
}

/// One template of the tenant, from the record: what was just saved is there, through whichever gateway.
pub(crate) async fn find(
    gateway: &Gateway,
    caller: &Caller,
    name: &str,
) -> Result<events::Template, ApiError> {
    let templates = gateway.store().templates(&caller.tenant).await.map_err(ApiError::store)?;
    templates.into_iter().find(|template| template.name == name).ok_or_else(|| no_template(name))
}

/// Waits until an event is in the record. The reader must be older than the event.
pub(crate) async fn recorded(mut reader: FeedReader, id: EventId) -> Result<(), ApiError> {
    let seen = async {
        loop {
            if reader.next().await?.event.id == id {
                return Ok::<(), feed::FeedError>(());
            }
        }
    };
    match tokio::time::timeout(RECORD_PATIENCE, seen).await {
        Ok(seen) => seen.map_err(ApiError::unavailable),
        Err(_) => Err(ApiError::unavailable("the recorder does not follow: a change is not recorded")),
    }
}
