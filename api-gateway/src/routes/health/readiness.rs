use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::gateway::Gateway;
use crate::routes::providers::{Provider, all};

/// What executors say of a provider with a name in front.
const REASONS: [&str; 3] = ["disk_low", "network_rules", "network_names"];

/// A server that carries out requests, and what of it works. No key is asked for here, so it says no more than that.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready`
    pub status: &'static str,
    /// Of the server.
    pub version: &'static str,
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
#[derive(Debug, Serialize, ToSchema)]
pub struct ProviderReadiness {
    /// Its name.
    pub name: String,
    /// Whether some node can make boxes with it.
    pub healthy: bool,
    /// Whether it is the one of a spawn that names none.
    pub default: bool,
    /// Why it does not work, where that has a stable name: `disk_low`, `network_rules`, `network_names`. The rest is in the diagnostics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// When a node last told of it.
    pub last_checked: DateTime<Utc>,
}

impl From<Provider> for ProviderReadiness {
    fn from(provider: Provider) -> Self {
        Self {
            name: provider.name,
            healthy: provider.healthy,
            default: provider.default,
            reason: provider.error.as_deref().and_then(code),
            last_checked: provider.last_checked,
        }
    }
}

/// The stable name that an error begins with.
fn code(error: &str) -> Option<&'static str> {
    let (name, _) = error.split_once(": ")?;
    REASONS.into_iter().find(|reason| *reason == name)
}

impl Readiness {
    /// What is to be said when it is ready.
    pub fn of(gateway: &Gateway) -> Self {
        let providers: Vec<_> = all(gateway).into_iter().map(ProviderReadiness::from).collect();
        Self {
            status: "ready",
            version: env!("CARGO_PKG_VERSION"),
            uptime: gateway.uptime_text(),
            ready_providers: providers.iter().filter(|provider| provider.healthy).count(),
            total_providers: providers.len(),
            providers,
        }
    }
}
