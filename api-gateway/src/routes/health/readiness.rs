use api_types::{Open, ProbeAnswer, Provider, ProviderReadiness, ProviderTrouble, Readiness, Word as _};

use super::VERSION;
use crate::gateway::Gateway;
use crate::routes::providers::all;

/// What is to be said when the server is ready.
pub fn of(gateway: &Gateway) -> Readiness {
    let providers: Vec<_> = all(gateway).into_iter().map(shown).collect();
    Readiness {
        status: ProbeAnswer::Ready.into(),
        version: VERSION.into(),
        uptime: gateway.uptime_text(),
        ready_providers: providers.iter().filter(|provider| provider.healthy).count(),
        total_providers: providers.len(),
        providers,
    }
}

/// A provider for those who have no key: what is wrong with it only where that has a name.
fn shown(provider: Provider) -> ProviderReadiness {
    ProviderReadiness {
        name: provider.name,
        healthy: provider.healthy,
        default: provider.default,
        reason: provider.error.as_deref().and_then(trouble).map(Open::Known),
        last_checked: provider.last_checked,
    }
}

/// The stable name that an error begins with.
fn trouble(error: &str) -> Option<ProviderTrouble> {
    let (name, _) = error.split_once(": ")?;
    ProviderTrouble::ALL.iter().find(|trouble| trouble.as_str() == name).copied()
}
