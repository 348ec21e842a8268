//! What the operator decides. The CLI reads it from files, environment and flags; here it is only said.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use events::{CapabilitySet, Network, ProviderName};
use objects::Store;
use policy::{AddressPolicy, DiskFloor, ImagePolicy};
use secrets::{MasterKey, RedactionRules};

use crate::auth::ApiKey;
use crate::limits::Limits;
use crate::origin::Origin;

/// All that the gateway is told at its start.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// The keys. None at all turns authentication off: only for a listener on loopback.
    pub keys: Vec<ApiKey>,
    /// The deployment's master key: seals secrets, signs links. The default is for tests only.
    pub master_key: MasterKey,
    /// What is masked in events.
    pub redaction: RedactionRules,
    /// What has to stay free on the server's disks. Below it no new work is taken.
    pub disk: DiskFloor,
    /// What the audit log asks.
    pub audit: AuditLimits,
    /// What others may take.
    pub limits: Limits,
    /// What a spawn gets that does not say otherwise, and what it may ask for.
    pub sandboxes: SandboxLimits,
    /// The same for execs.
    pub execs: ExecLimits,
    /// The same for webhooks.
    pub webhooks: WebhookLimits,
    /// How many schedules a tenant may have.
    pub max_schedules_per_tenant: usize,
    /// The largest JSON body, in bytes.
    pub max_body_bytes: usize,
    /// The largest JSON body that carries a file's content, in bytes. Larger files go through the streaming upload.
    pub max_file_body_bytes: usize,
    /// The largest streaming upload, in bytes; `None`: whatever fits into the sandbox.
    pub max_upload_bytes: Option<u64>,
    /// Origins of browsers that may call. Empty: none but the server's own.
    pub allowed_origins: Vec<Origin>,
    /// Where the files are that outlive their sandbox; none: nowhere.
    pub objects: Option<Store>,
    /// How long a spawn waits until the sandbox runs, before it answers with state `creating`.
    pub spawn_wait: Duration,
    /// How long a destroy waits until the sandbox is gone, before it answers `destroying`.
    pub destroy_wait: Duration,
    /// How long open connections may take to end when the gateway stops.
    pub shutdown_grace: Duration,
    /// How long a WebSocket client may take nothing of what it is sent before it is closed with 1013.
    pub slow_reader_limit: Duration,
    /// How long an HTTP client may take nothing of an answer, or send nothing of a body, before its connection ends.
    pub stalled_client_limit: Duration,
    /// How long a client may take to send the head of a request; also how long an idle connection is kept.
    pub head_limit: Duration,
    /// How often a WebSocket client is asked whether it lives.
    pub websocket_ping: Duration,
    /// How long a WebSocket client may say nothing, not even that it lives.
    pub websocket_silence: Duration,
    /// How often a silent stream shows that it lives. Clients give up after 30 s of silence.
    pub heartbeat: Duration,
}

/// What the audit log asks of requests.
#[derive(Debug, Clone)]
pub struct AuditLimits {
    /// How far the recorder may be behind, or silent, before requests that change something are refused.
    pub max_lag: Duration,
    /// The file of the keys by which checkpoints are known to be signed. It may come to be later.
    pub public_key_file: Option<PathBuf>,
    /// Where the recorder writes checkpoints outside the database, if that is on this machine.
    pub checkpoint_file: Option<PathBuf>,
}

impl Default for AuditLimits {
    fn default() -> Self {
        Self { max_lag: Duration::from_secs(10), public_key_file: None, checkpoint_file: None }
    }
}

/// Defaults and maxima of sandboxes.
#[derive(Debug, Clone)]
pub struct SandboxLimits {
    /// The box-maker of a spawn that names none.
    pub default_provider: ProviderName,
    /// All box-makers that this deployment means to have, alive or not.
    pub known_providers: BTreeSet<ProviderName>,
    /// The image of a spawn that names none.
    pub default_image: String,
    /// Which images may be used, by whom.
    pub images: ImagePolicy,
    /// The time to live of a spawn that names none.
    pub default_ttl: Duration,
    /// The greatest time to live.
    pub max_ttl: Duration,
    /// The greatest age, which no extension passes.
    pub max_lifetime: Duration,
    /// How long a spawn may wait for an executor that has room, before it fails.
    pub max_queue_wait: Duration,
    /// The memory of a spawn that names none, in MiB.
    pub default_memory_mib: u32,
    /// The greatest memory, in MiB.
    pub max_memory_mib: u32,
    /// The CPU time of a spawn that names none, in thousandths of one CPU.
    pub default_cpu_millis: u32,
    /// The greatest CPU time, in thousandths of one CPU.
    pub max_cpu_millis: u32,
    /// The number of processes of a spawn that names none.
    pub default_pids: u32,
    /// The greatest number of processes.
    pub max_pids: u32,
    /// What root in a sandbox may do that asks for no less. Nobody gets more.
    pub capabilities: CapabilitySet,
    /// The network of a spawn that names none.
    pub default_network: Network,
    /// Whether sandboxes may ask for the provider's bridge network.
    pub allow_bridge_network: bool,
}

/// Defaults and maxima of execs.
#[derive(Debug, Clone)]
pub struct ExecLimits {
    /// When a sync exec that names no timeout is ended; zero for `max_timeout`. Streams run until they end.
    pub default_sync_timeout: Duration,
    /// The greatest timeout.
    pub max_timeout: Duration,
    /// The most output of a sync reply, both streams together, in bytes. More has to be streamed.
    pub max_sync_output_bytes: usize,
    /// How much longer than its timeout a sync exec is waited for: the time a command may take to reach its node.
    pub delivery_grace: Duration,
}

/// What webhooks may be.
#[derive(Debug, Clone)]
pub struct WebhookLimits {
    /// Which addresses a URL may name. Those that its host's name resolves to are checked at each delivery.
    pub addresses: AddressPolicy,
    /// Whether `http://` is good enough.
    pub allow_http: bool,
    /// How many a tenant may have.
    pub max_per_tenant: usize,
}

impl Default for WebhookLimits {
    fn default() -> Self {
        Self { addresses: AddressPolicy::default(), allow_http: false, max_per_tenant: 100 }
    }
}

impl ExecLimits {
    /// When a sync exec that names no timeout is ended.
    pub const fn sync_timeout(&self) -> Duration {
        if self.default_sync_timeout.is_zero() { self.max_timeout } else { self.default_sync_timeout }
    }
}

impl Default for SandboxLimits {
    fn default() -> Self {
        let docker = docker();
        Self {
            known_providers: BTreeSet::from([docker.clone()]),
            default_provider: docker,
            default_image: "alpine:latest".to_owned(),
            images: ImagePolicy::default(),
            default_ttl: Duration::from_secs(30 * 60),
            max_ttl: Duration::from_secs(24 * 3600),
            max_lifetime: Duration::from_secs(24 * 3600),
            max_queue_wait: Duration::from_secs(5 * 60),
            default_memory_mib: 512,
            max_memory_mib: 64 * 1024,
            default_cpu_millis: 1000,
            max_cpu_millis: 64_000,
            default_pids: 256,
            max_pids: 32_768,
            capabilities: CapabilitySet::default(),
            default_network: Network::None,
            allow_bridge_network: true,
        }
    }
}

#[expect(clippy::expect_used, reason = "a constant that a unit test reads")]
fn docker() -> ProviderName {
    "docker".parse().expect("a valid provider name")
}

impl Default for ExecLimits {
    fn default() -> Self {
        Self {
            default_sync_timeout: Duration::from_secs(5 * 60),
            max_timeout: Duration::from_secs(24 * 3600),
            max_sync_output_bytes: 64 << 20,
            delivery_grace: Duration::from_secs(30),
        }
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            master_key: MasterKey::from_bytes([0; 32]),
            redaction: RedactionRules::default(),
            disk: DiskFloor::default(),
            audit: AuditLimits::default(),
            limits: Limits::default(),
            sandboxes: SandboxLimits::default(),
            execs: ExecLimits::default(),
            webhooks: WebhookLimits::default(),
            max_schedules_per_tenant: 200,
            max_body_bytes: 1 << 20,
            max_file_body_bytes: 64 << 20,
            max_upload_bytes: None,
            objects: None,
            allowed_origins: Vec::new(),
            spawn_wait: Duration::from_secs(120),
            destroy_wait: Duration::from_secs(25),
            shutdown_grace: Duration::from_secs(10),
            slow_reader_limit: Duration::from_secs(30),
            stalled_client_limit: Duration::from_secs(30),
            head_limit: Duration::from_secs(75),
            websocket_ping: Duration::from_secs(20),
            websocket_silence: Duration::from_secs(65),
            heartbeat: Duration::from_secs(10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_the_maxima() {
        let limits = SandboxLimits::default();
        assert!(limits.default_ttl <= limits.max_ttl);
        assert!(limits.default_memory_mib <= limits.max_memory_mib);
        assert!(limits.known_providers.contains(&limits.default_provider));
    }

    #[test]
    fn without_a_default_only_the_maximum_ends_an_exec() {
        let none = ExecLimits { default_sync_timeout: Duration::ZERO, ..ExecLimits::default() };
        assert_eq!(none.sync_timeout(), none.max_timeout);
        let default = ExecLimits::default();
        assert_eq!(default.sync_timeout(), default.default_sync_timeout);
    }
}
