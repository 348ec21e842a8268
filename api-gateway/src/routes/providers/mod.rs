//! Providers: the box-makers, as the executors report them.

pub mod get;
pub mod list;
pub mod test;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api_types::Provider;
use chrono::{DateTime, SubsecRound, Utc};
use events::{ProviderName, SandboxState};
use feed::NodeStatus;

use crate::auth::Caller;
use crate::gateway::Gateway;

/// How many warnings of one node are shown, and how long each may be, in bytes.
const MOST_WARNINGS: usize = 32;
const LONGEST_WARNING: usize = 1024;

/// What is known of each provider: those that the deployment means to have, and those that nodes report.
pub(crate) fn all(gateway: &Gateway) -> Vec<Provider> {
    let limits = &gateway.config().sandboxes;
    merge(&limits.known_providers, &limits.default_provider, &gateway.view().nodes(), gateway.clock().now())
}

/// The same for whoever asks: of boxes of others, and of what ails the machines that all share, a tenant is not told.
pub(crate) fn shown(gateway: &Gateway, caller: &Caller) -> Vec<Provider> {
    let mut providers = all(gateway);
    if !caller.sees_the_whole() {
        let live = gateway.live_sandboxes(caller);
        for provider in &mut providers {
            provider.error = None;
            provider.warnings.clear();
            provider.runtime_count = count(&live, &provider.name);
        }
    }
    providers
}

/// How many of these sandboxes are of this provider.
fn count(live: &[Arc<SandboxState>], provider: &str) -> u32 {
    let of_it = live.iter().filter(|state| state.spec.provider.as_str() == provider);
    u32::try_from(of_it.count()).unwrap_or(u32::MAX)
}

fn merge(
    known: &BTreeSet<ProviderName>,
    default: &ProviderName,
    nodes: &[NodeStatus],
    now: DateTime<Utc>,
) -> Vec<Provider> {
    let mut providers: BTreeMap<&ProviderName, Provider> = BTreeMap::new();
    for node in nodes {
        let checked = (now - node.silent_for).trunc_subsecs(6);
        for report in &node.heartbeat.providers {
            let fresh = || Provider {
                last_checked: checked,
                latency_ms: report.latency_ms,
                ..nobody(&report.name, default, now)
            };
            let provider = providers.entry(&report.name).or_insert_with(fresh);
            provider.healthy |= report.healthy;
            provider.latency_ms = provider.latency_ms.min(report.latency_ms);
            provider.last_checked = provider.last_checked.max(checked);
            provider.pools.insert(report.pool().to_string());
            provider.capabilities.extend(report.capabilities.iter().cloned());
            provider.runtime_count += report.boxes;
            let warnings = report.warnings.iter().filter(|warning| warning.len() <= LONGEST_WARNING);
            provider.warnings.extend(warnings.take(MOST_WARNINGS).cloned());
            provider.error = report.error.clone().or(provider.error.take());
        }
    }
    for name in known.iter().chain([default]) {
        providers.entry(name).or_insert_with(|| Provider {
            error: Some("no executor with this provider shows signs of life".to_owned()),
            ..nobody(name, default, now)
        });
    }
    let mut all: Vec<Provider> = providers.into_values().collect();
    for provider in all.iter_mut().filter(|provider| provider.healthy) {
        // One node that fails is its operator's business as long as another works.
        provider.error = None;
    }
    all
}

fn nobody(name: &ProviderName, default: &ProviderName, now: DateTime<Utc>) -> Provider {
    Provider {
        name: name.to_string(),
        healthy: false,
        default: name == default,
        latency_ms: 0,
        last_checked: now,
        pools: BTreeSet::new(),
        capabilities: BTreeSet::new(),
        error: None,
        warnings: BTreeSet::new(),
        runtime_count: 0,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use transport::{Heartbeat, ProviderHealth};

    use super::*;

    fn node(name: &str, healthy: bool, latency_ms: u64) -> NodeStatus {
        NodeStatus {
            heartbeat: Heartbeat {
                node: name.parse().unwrap(),
                providers: vec![ProviderHealth {
                    name: "docker".parse().unwrap(),
                    pool: (name == "b").then(|| "fast".parse().unwrap()),
                    healthy,
                    latency_ms,
                    error: (!healthy).then(|| "the daemon does not answer".to_owned()),
                    capabilities: vec![name.to_owned()],
                    boxes: 2,
                    warnings: vec!["old".to_owned(), format!("of {name}"), "x".repeat(2000)],
                }],
                capacity: 10,
                used: 2,
                draining: false,
                machine: None,
            },
            silent_for: Duration::from_secs(1),
        }
    }

    #[test]
    fn reports_of_nodes_are_merged_and_missing_ones_are_unhealthy() {
        let docker: ProviderName = "docker".parse().unwrap();
        let bwrap: ProviderName = "bubblewrap".parse().unwrap();
        let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let known = BTreeSet::from([docker.clone(), bwrap]);
        let all = merge(&known, &docker, &[node("a", false, 9), node("b", true, 3)], now);
        assert_eq!(
            all.iter().map(|it| (it.name.as_str(), it.healthy, it.default)).collect::<Vec<_>>(),
            [("bubblewrap", false, false), ("docker", true, true)]
        );
        assert!(all[0].error.is_some());
        let docker = &all[1];
        assert_eq!((docker.latency_ms, docker.runtime_count, &docker.error), (3, 4, &None));
        assert_eq!(docker.capabilities.len(), 2);
        assert_eq!(docker.pools.iter().collect::<Vec<_>>(), ["docker", "fast"]);
        assert_eq!(docker.warnings.iter().map(String::as_str).collect::<Vec<_>>(), ["of a", "of b", "old"]);
        assert_eq!(docker.last_checked, now - Duration::from_secs(1));
    }
}
