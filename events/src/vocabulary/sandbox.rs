//! What happens to sandboxes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::SandboxErased;
use crate::{JobId, NodeId};

words! {
    /// What happens to a sandbox.
    Sandbox(SandboxEvent) {
        Requested(SandboxRequested) = "sandbox.requested" [begins],
        Starting(SandboxStarting) = "sandbox.starting" [by_executors],
        Pulling(SandboxPulling) = "sandbox.pulling" [by_executors],
        Running(SandboxRunning) = "sandbox.running" [by_executors],
        Failed(SandboxFailed) = "sandbox.failed" [by_executors, ends],
        TtlExtended(SandboxTtlExtended) = "sandbox.ttl_extended" [by_executors],
        Destroying(SandboxDestroying) = "sandbox.destroying" [by_executors],
        Destroyed(SandboxDestroyed) = "sandbox.destroyed" [by_executors, ends],
        Erased(SandboxErased) = "sandbox.erased",
    }
}

/// A name as it stands in subjects and configurations: at most 32 letters, digits, `-` and `_`.
macro_rules! short_name {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = crate::IdError;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                if is_short_name(&text) { Ok(Self(text)) } else { Err(crate::IdError::Name { kind: $kind, max: 32 }) }
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::IdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_short_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.len() <= 32 && text.bytes().all(fits)
}

short_name! {
    /// A kind of box-maker: `docker`, `bubblewrap`.
    ProviderName, "a provider"
}

short_name! {
    /// Some executors that have the same provider and take the same sandboxes. One that is named nowhere is called as its provider.
    PoolName, "a pool"
}

impl From<&ProviderName> for PoolName {
    fn from(provider: &ProviderName) -> Self {
        Self(provider.0.clone())
    }
}

/// What a sandbox may reach by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Loopback only.
    #[default]
    None,
    /// The provider's bridge: whatever the host can reach.
    Bridge,
}

/// What root in a sandbox may do that others may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapabilitySet {
    /// Everyday work: change owners and users, use what belongs to others in the sandbox, listen on low ports.
    #[default]
    Standard,
    /// No capabilities at all.
    Minimal,
}

/// What was asked for. Values of environment variables are secrets and are not part of it; their names are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The box-maker.
    pub provider: ProviderName,
    /// Which executors of that provider it is for; absent: those of the pool that is called as the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// The image, as the client named it.
    pub image: String,
    /// The memory limit, in MiB.
    pub memory_mib: u32,
    /// The limit of CPU time, in thousandths of one CPU.
    pub cpu_millis: u32,
    /// The greatest number of processes and threads.
    pub pids_limit: u32,
    /// The network.
    #[serde(default)]
    pub network: Network,
    /// Whether the root file system is read-only (with a tmpfs on /tmp and /workspace).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only_root: bool,
    /// What root in it may do; the standard set when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilitySet>,
    /// The container runtime, where the provider has more than one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The user who owns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The template that it was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The client's own labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// The names of the environment variables that every exec gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_names: Vec<String>,
    /// A keyed fingerprint of the value of each, by name: the same value of the same tenant has the same one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env_hmac: BTreeMap<String, String>,
    /// Which of them are secrets: their values are masked in all that the sandbox writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret_names: Vec<String>,
    /// The digest of a request that came with an `Idempotency-Key`: the same key with another body is a conflict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
    /// The job that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobId>,
    /// Shell lines that are run in it, one after the other, before it counts as running. One that fails, fails it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
}

/// `sandbox.requested`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxRequested {
    /// What was asked for.
    pub spec: SandboxSpec,
    /// The deadline. Where there is a `term`: the latest that it can be; the right one comes with `sandbox.running`.
    pub expires_at: DateTime<Utc>,
    /// The time past which no extension moves the deadline. The same holds for it.
    pub lifetime_ends_at: DateTime<Utc>,
    /// How long it may wait and live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<Term>,
}

/// How long a sandbox may wait and live. What it may live is counted from when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Its time to live, in milliseconds.
    pub ttl_ms: u64,
    /// The greatest age that extensions may bring it to, in milliseconds.
    pub lifetime_ms: u64,
    /// When it fails if no executor has had room for it by then.
    pub start_by: DateTime<Utc>,
}

impl Term {
    /// The deadline, and the time past which no extension moves it, of a sandbox that runs since `running_at`.
    pub fn ends(&self, running_at: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        let after = |ms: u64| {
            let length = chrono::TimeDelta::milliseconds(i64::try_from(ms).unwrap_or(i64::MAX));
            running_at.checked_add_signed(length).unwrap_or(DateTime::<Utc>::MAX_UTC)
        };
        let lifetime_ends_at = after(self.lifetime_ms);
        (after(self.ttl_ms).min(lifetime_ends_at), lifetime_ends_at)
    }
}

/// `sandbox.starting`: an executor has taken it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxStarting {
    /// Whose sandbox it now is.
    pub node: NodeId,
}

/// `sandbox.pulling`: the image is not there yet. Sent when it starts and then as it advances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxPulling {
    /// The image.
    pub image: String,
    /// Bytes fetched so far, over all layers.
    pub fetched_bytes: u64,
    /// Bytes to fetch in all, as far as known.
    pub total_bytes: u64,
}

/// `sandbox.running`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxRunning {
    /// Where it runs.
    pub node: NodeId,
    /// The provider's own id for it.
    pub runtime_id: String,
    /// How long it took from the command to the agent's first answer, in microseconds.
    pub took_us: u64,
    /// Its deadline from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
    /// The time past which no extension moves the deadline, from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime_ends_at: Option<DateTime<Utc>>,
    /// Its address on the provider's bridge, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// Why a sandbox could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// No registry has the image, or none may be asked.
    ImageNotFound,
    /// The image exists but could not be fetched.
    ImagePullFailed,
    /// The request names something that the provider does not have (a runtime, a network).
    Unsupported,
    /// The provider is down or broken.
    ProviderUnavailable,
    /// The box was made, but its agent never answered.
    AgentUnreachable,
    /// The deadline passed before it ran.
    DeadlinePassed,
    /// What it was asked to work in is not there.
    SandboxGone,
    /// The request is invalid in a way that only the sandbox could tell (a working directory that is not there).
    Invalid,
    /// Anything else; the log has the detail.
    Internal,
    /// No executor had room for it in the time that it may wait.
    QueueTimeout,
    /// A limit of the sandbox: too many processes or execs.
    ResourceLimit,
    /// Its command was lost on the way.
    CommandLost,
}

/// `sandbox.failed`: it never ran. Terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxFailed {
    /// The kind of failure.
    pub code: FailureCode,
    /// One sentence that may be shown to the client.
    pub message: String,
}

/// `sandbox.ttl_extended`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxTtlExtended {
    /// The new deadline.
    pub expires_at: DateTime<Utc>,
}

/// Why a sandbox was destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DestroyReason {
    /// A client asked for it.
    User,
    /// Its deadline passed.
    Ttl,
    /// It reached the greatest age that a sandbox may have.
    Lifetime,
    /// The box ended by itself, or somebody removed it behind our back.
    Vanished,
    /// Its agent could not be reached for so long that nothing can be done with it any more.
    AgentLost,
}

impl DestroyReason {
    /// As the wire writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Ttl => "ttl",
            Self::Lifetime => "lifetime",
            Self::Vanished => "vanished",
            Self::AgentLost => "agent_lost",
        }
    }
}

/// `sandbox.destroyed`. Terminal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxDestroyed {
    /// The reason.
    pub reason: DestroyReason,
}

/// `sandbox.destroying`: its end was asked for and begins. However it goes from here, that is the reason of its end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxDestroying {
    /// The reason.
    pub reason: DestroyReason,
}

impl SandboxSpec {
    /// Which executors it is for.
    pub fn pool(&self) -> PoolName {
        self.pool.clone().unwrap_or_else(|| PoolName::from(&self.provider))
    }

    /// The CPU limit as the API writes it, in whole CPUs, rounded up.
    pub fn vcpus(&self) -> u32 {
        self.cpu_millis.div_ceil(1000)
    }
}

impl SandboxRequested {
    /// How long it was meant to live, seen from `now`; zero when that is over.
    pub fn time_left(&self, now: DateTime<Utc>) -> Duration {
        (self.expires_at - now).to_std().unwrap_or_default()
    }
}
