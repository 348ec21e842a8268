//! Sandboxes.

pub mod admission;
pub mod destroy;
pub mod erase;
pub mod extend;
pub mod get;
pub mod list;
pub mod logs;
pub mod past;
pub mod plan;
pub mod prune;
pub mod replay;
pub mod spawn;
pub mod stats;
pub mod timeline;

use api_types::Sandbox;
use chrono::{DateTime, Utc};
use events::{Network, SandboxPhase, SandboxState};

use crate::gateway::Gateway;

/// The sandbox as clients see it.
pub fn shown(state: &SandboxState, gateway: &Gateway) -> Sandbox {
    shown_at(state, gateway.clock().now())
}

/// The same by another clock.
fn shown_at(state: &SandboxState, now: DateTime<Utc>) -> Sandbox {
    let message = match &state.phase {
        SandboxPhase::Failed { message, .. } => Some(message.clone()),
        SandboxPhase::Requested
        | SandboxPhase::Starting { .. }
        | SandboxPhase::Running { .. }
        | SandboxPhase::Destroyed { .. } => None,
    };
    Sandbox {
        id: state.id.to_string(),
        state: state_name(state, now).into(),
        provider: state.spec.provider.to_string(),
        pool: state.spec.pool().to_string(),
        image: state.spec.image.clone(),
        memory_mb: state.spec.memory_mib,
        vcpus: state.spec.vcpus(),
        network: network(state.spec.network).into(),
        ip: state.address.filter(|_| !state.is_terminal()),
        created_at: state.requested_at,
        expires_at: state.expires_at,
        owner_id: state.spec.owner.clone(),
        tenant_id: Some(state.tenant.to_string()),
        worker_id: state.node().map(ToString::to_string),
        metadata: state.spec.metadata.clone(),
        template: state.spec.template.clone(),
        message,
    }
}

pub(crate) const fn network(network: Network) -> api_types::Network {
    match network {
        Network::None => api_types::Network::None,
        Network::Bridge => api_types::Network::Bridge,
    }
}

/// The word of the API for where a sandbox stands.
pub fn state_name(state: &SandboxState, now: DateTime<Utc>) -> api_types::SandboxState {
    use api_types::SandboxState as Word;
    if state.is_expired(now) && !state.is_terminal() {
        return Word::Expired;
    }
    if state.ending.is_some() && !state.is_terminal() {
        return Word::Destroying;
    }
    match &state.phase {
        SandboxPhase::Failed { .. } => Word::Error,
        SandboxPhase::Destroyed { .. } => Word::Destroyed,
        SandboxPhase::Requested | SandboxPhase::Starting { .. } => Word::Creating,
        SandboxPhase::Running { .. } => Word::Running,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use api_types::Word as _;
    use chrono::TimeDelta;
    use events::{DestroyReason, FailureCode, SandboxId, SandboxSpec, TenantId};

    use super::*;

    pub(crate) fn state(phase: SandboxPhase) -> SandboxState {
        let at = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        SandboxState {
            id: SandboxId::from_bytes([1; 16]),
            tenant: TenantId::default_tenant(),
            spec: SandboxSpec {
                provider: "docker".parse().unwrap(),
                image: "alpine:latest".to_owned(),
                memory_mib: 512,
                cpu_millis: 1500,
                pool: None,
                pids_limit: 256,
                network: Network::None,
                read_only_root: false,
                capabilities: None,
                runtime: None,
                owner: None,
                template: None,
                metadata: BTreeMap::new(),
                env_names: Vec::new(),
                env_hmac: Default::default(),
                secret_names: Vec::new(),
                request_digest: None,
                job: None,
                setup: Vec::new(),
            },
            requested_at: at,
            expires_at: at + TimeDelta::minutes(30),
            lifetime_ends_at: at + TimeDelta::hours(24),
            term: None,
            ending: None,
            phase,
            address: None,
        }
    }

    #[test]
    fn each_phase_has_its_word() {
        let now = DateTime::from_timestamp(1_700_000_060, 0).unwrap();
        let node: events::NodeId = "n1".parse().unwrap();
        for (phase, word) in [
            (SandboxPhase::Requested, "creating"),
            (SandboxPhase::Starting { node: node.clone() }, "creating"),
            (SandboxPhase::Running { node: node.clone(), since: now }, "running"),
            (SandboxPhase::Failed { code: FailureCode::Internal, message: "m".to_owned(), at: now }, "error"),
            (SandboxPhase::Destroyed { reason: DestroyReason::User, at: now }, "destroyed"),
        ] {
            assert_eq!(state_name(&state(phase), now).as_str(), word);
        }
        let late = now + TimeDelta::hours(1);
        assert_eq!(state_name(&state(SandboxPhase::Running { node, since: now }), late).as_str(), "expired");
    }

    #[test]
    fn empty_fields_are_left_out() {
        let at = DateTime::from_timestamp(1_700_000_060, 0).unwrap();
        let json = serde_json::to_value(shown_at(&state(SandboxPhase::Requested), at)).unwrap();
        let mut keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(
            keys,
            [
                "created_at",
                "expires_at",
                "id",
                "image",
                "memory_mb",
                "network",
                "pool",
                "provider",
                "state",
                "tenant_id",
                "vcpus"
            ]
        );
        assert_eq!((&json["vcpus"], &json["created_at"]), (&2.into(), &"2023-11-14T22:13:20Z".into()));
    }
}
