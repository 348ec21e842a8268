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

use chrono::{DateTime, Utc};
use events::{CapabilitySet, EventId, Network, TenantId};
use feed::FeedReader;
use serde::Serialize;
use spelling::format_go_duration;
use utoipa::ToSchema;

use crate::auth::Caller;
use crate::error::ApiError;
use crate::gateway::Gateway;

/// How long a change may take to be recorded.
const RECORD_PATIENCE: Duration = Duration::from_secs(20);

/// A template, with the field names of the SDK and of the Go server.
#[derive(Debug, Serialize, ToSchema)]
pub struct Template {
    /// The name, unique in its tenant.
    pub name: String,
    /// The image.
    pub image: String,
    /// The box-maker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The memory limit, in MiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// The CPU limit, in whole CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpus: Option<u32>,
    /// The same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_cores: Option<u32>,
    /// The time to live, as a Go duration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// The same, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// What root in its sandboxes may do: `standard` or `minimal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^(standard|minimal)$")]
    pub capabilities: Option<CapabilitySet>,
    /// Labels for every sandbox made from it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Environment variables of every exec in a sandbox made from it. In the log they are sealed.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The names of more of them, whose values no answer shows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secret_names: Vec<String>,
    /// One line for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// The client's own number; 1 where it gave none.
    pub version: u32,
    /// `none` or `bridge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, pattern = "^(none|bridge)$")]
    pub network: Option<Network>,
    /// Shell lines that are run in every sandbox made from it before it counts as running.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
    /// Hosts that its sandboxes are meant to reach.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<String>,
    /// When it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<DateTime<Utc>>,
    /// When it was saved last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<DateTime<Utc>>,
    /// What of it does not do what one may expect.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<&'static str>,
}

/// What a template with `allowed_hosts` is told.
const HOSTS_WARNING: &str =
    "allowed_hosts is not enforced host by host: sandboxes of this template get no network at all";

impl Template {
    fn of(template: events::Template, gateway: &Gateway, tenant: &TenantId) -> Self {
        let env = sealed::shown(gateway, tenant, &template);
        Self::with(template, env)
    }

    fn with(template: events::Template, env: BTreeMap<String, String>) -> Self {
        let secrets = template.variables.into_iter().filter(|(_, variable)| variable.secret);
        Self {
            name: template.name,
            image: template.image,
            provider: template.provider,
            memory_mb: template.memory_mib,
            vcpus: template.vcpus,
            cpu_cores: template.vcpus,
            ttl: template.ttl_seconds.map(|seconds| format_go_duration(Duration::from_secs(seconds))),
            ttl_seconds: template.ttl_seconds,
            capabilities: template.capabilities,
            metadata: template.metadata,
            env,
            secret_names: secrets.map(|(name, _)| name).collect(),
            description: template.description,
            version: template.version.unwrap_or(1),
            network: template.network,
            setup: template.setup,
            warnings: if template.allowed_hosts.is_empty() { Vec::new() } else { vec![HOSTS_WARNING] },
            allowed_hosts: template.allowed_hosts,
            created_at: template.created_at,
            updated_at: template.updated_at,
        }
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
