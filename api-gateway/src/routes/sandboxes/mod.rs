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

use std::collections::BTreeMap;
use std::net::IpAddr;

use chrono::{DateTime, Utc};
use events::{Network, SandboxPhase, SandboxState};
use serde::Serialize;
use utoipa::ToSchema;

use crate::gateway::Gateway;

/// A sandbox.
#[derive(Debug, Serialize, ToSchema)]
pub struct Sandbox {
    /// Its id.
    #[schema(example = "sb-01jd2x5c0pe3tt4m1q5a8z0v9k")]
    pub id: String,
    /// `creating`, `running`, `idle`, `paused`, `unhealthy`, `expired`, `destroying`, `destroyed` or `error`.
    pub state: &'static str,
    /// The box-maker.
    pub provider: String,
    /// The image, as it was asked for.
    pub image: String,
    /// The memory limit, in MiB.
    pub memory_mb: u32,
    /// The CPU limit, in whole CPUs, rounded up.
    pub vcpus: u32,
    /// `none` or `bridge`.
    #[schema(value_type = String, pattern = "^(none|bridge)$")]
    pub network: Network,
    /// Its address on the provider's bridge, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "172.18.0.2")]
    pub ip: Option<IpAddr>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// Its deadline. Its time to live counts from when it runs: until then this is the latest that it can be.
    pub expires_at: DateTime<Utc>,
    /// The user who owns it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner_id: Option<String>,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// The node that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_id: Option<String>,
    /// The client's own labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The domain of its previews: `http://{port}-{id}.{preview_domain}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preview_domain: Option<String>,
    /// The template that it was made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// What went wrong, for state `error` and `unhealthy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Sandbox {
    /// The sandbox as clients see it.
    pub fn of(state: &SandboxState, gateway: &Gateway) -> Self {
        Self::at(state, gateway.clock().now(), gateway.config().preview_domain.as_deref())
    }

    /// The same by another clock.
    fn at(state: &SandboxState, now: DateTime<Utc>, preview_domain: Option<&str>) -> Self {
        let message = match &state.phase {
            SandboxPhase::Failed { message, .. } | SandboxPhase::Unhealthy { message, .. } => {
                Some(message.clone())
            }
            SandboxPhase::Lost { .. } => Some("its node does not answer".to_owned()),
            SandboxPhase::Requested
            | SandboxPhase::Starting { .. }
            | SandboxPhase::Running { .. }
            | SandboxPhase::Destroyed { .. } => None,
        };
        Self {
            id: state.id.to_string(),
            state: state_name(state, now),
            provider: state.spec.provider.to_string(),
            image: state.spec.image.clone(),
            memory_mb: state.spec.memory_mib,
            vcpus: state.spec.vcpus(),
            network: state.spec.network,
            ip: state.address.filter(|_| !state.is_terminal()),
            created_at: state.requested_at,
            expires_at: state.expires_at,
            owner_id: state.spec.owner.clone(),
            tenant_id: Some(state.tenant.to_string()),
            worker_id: state.node().map(ToString::to_string),
            metadata: state.spec.metadata.clone(),
            preview_domain: preview_domain.filter(|domain| !domain.is_empty()).map(str::to_owned),
            template: state.spec.template.clone(),
            message,
        }
    }
}

/// The word of the API for where a sandbox stands.
pub fn state_name(state: &SandboxState, now: DateTime<Utc>) -> &'static str {
    if state.is_expired(now) && !state.is_terminal() {
        return "expired";
    }
    if state.ending.is_some() && !state.is_terminal() {
        return "destroying";
    }
    match &state.phase {
        SandboxPhase::Failed { .. } => "error",
        SandboxPhase::Destroyed { .. } => "destroyed",
        SandboxPhase::Requested | SandboxPhase::Starting { .. } => "creating",
        SandboxPhase::Running { .. } => "running",
        SandboxPhase::Unhealthy { .. } | SandboxPhase::Lost { .. } => "unhealthy",
    }
}

#[cfg(test)]
pub(crate) mod tests {
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
            (SandboxPhase::Unhealthy { node: node.clone(), message: "m".to_owned() }, "unhealthy"),
            (SandboxPhase::Lost { node: node.clone() }, "unhealthy"),
            (SandboxPhase::Failed { code: FailureCode::Internal, message: "m".to_owned(), at: now }, "error"),
            (SandboxPhase::Destroyed { reason: DestroyReason::User, at: now }, "destroyed"),
        ] {
            assert_eq!(state_name(&state(phase), now), word);
        }
        let late = now + TimeDelta::hours(1);
        assert_eq!(state_name(&state(SandboxPhase::Running { node, since: now }), late), "expired");
    }

    #[test]
    fn empty_fields_are_left_out() {
        let at = DateTime::from_timestamp(1_700_000_060, 0).unwrap();
        let json = serde_json::to_value(Sandbox::at(&state(SandboxPhase::Requested), at, Some(""))).unwrap();
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
                "provider",
                "state",
                "tenant_id",
                "vcpus"
            ]
        );
        assert_eq!((&json["vcpus"], &json["created_at"]), (&2.into(), &"2023-11-14T22:13:20Z".into()));
    }
}
