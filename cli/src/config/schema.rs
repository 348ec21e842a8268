//! The keys. Those that the Go server has and that mean the same have the same names.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use events::{CapabilitySet, Network};
use executor::providers::registry::Configured;
use serde::{Deserialize, Serialize};

use super::artifacts::ArtifactsConfig;
use super::limits::LimitsConfig;
use super::values::{AllowedOrigin, Bytes, GoDuration, KeptFor};

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port of the gateway; over `server.host` and `server.port`.
    pub listen: Option<String>,
    /// Where state lives.
    pub data_dir: Option<PathBuf>,
    /// The static agent binary; sought beside this binary when not given.
    pub agent: Option<PathBuf>,
    pub server: ServerConfig,
    pub node: NodeConfig,
    pub nats: NatsConfig,
    pub database: DatabaseConfig,
    pub providers: Configured,
    pub images: ImagesConfig,
    pub defaults: DefaultsConfig,
    pub auth: AuthConfig,
    pub secrets: SecretsConfig,
    pub encryption: EncryptionConfig,
    pub retention: RetentionConfig,
    pub redaction: RedactionConfig,
    pub audit: AuditConfig,
    pub disk: DiskConfig,
    pub limits: LimitsConfig,
    pub webhooks: WebhooksConfig,
    pub artifacts: ArtifactsConfig,
    pub jobs: JobsConfig,
    pub logging: LoggingConfig,
    /// The file that was read.
    #[serde(skip)]
    pub(crate) file: Option<PathBuf>,
    /// What was said and has no effect, for the log.
    #[serde(skip)]
    pub(crate) remarks: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    pub host: String,
    pub port: u16,
    /// Origins of browsers that may call.
    pub allowed_origins: Vec<AllowedOrigin>,
    /// The largest streaming upload; none: whatever fits into the sandbox.
    pub max_upload: Option<Bytes>,
    /// How long a WebSocket client may take nothing before it is closed with 1013.
    pub slow_reader_limit: GoDuration,
    /// How long an HTTP client may take nothing of an answer, or send nothing of a body, before its connection ends.
    pub stalled_client_limit: GoDuration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The name of this node; the host's name when not given.
    pub id: Option<String>,
    /// How many sandboxes it takes.
    pub capacity: u32,
    /// Past how much the output of one exec is cut off, with a marker.
    pub max_output: Bytes,
    /// How long the end of an exec waits for what it left running to close its output: 0 to 10 s.
    pub linger: GoDuration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsConfig {
    /// None: `serve` starts a nats-server of its own.
    pub url: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    /// The password is in this file.
    pub password_file: Option<PathBuf>,
    /// A `.creds` file: a JWT and the seed of its key.
    pub credentials_file: Option<PathBuf>,
    /// The seed of a key.
    pub nkey_file: Option<PathBuf>,
    /// What the server's certificate must come from, in PEM; the system's certificates when not given.
    pub ca_file: Option<PathBuf>,
    /// The certificate that the server is shown, and its key, in PEM.
    pub certificate_file: Option<PathBuf>,
    pub certificate_key_file: Option<PathBuf>,
    /// Whether only TLS will do.
    pub require_tls: bool,
    pub prefix: String,
    pub replicas: usize,
    /// How much may wait for the recorder.
    pub max_events: Bytes,
    /// The nats-server binary; sought in PATH when not given.
    pub server_path: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite:PATH` or `postgres://...`; over the other keys.
    pub url: Option<String>,
    pub driver: String,
    pub path: Option<PathBuf>,
    pub dsn: Option<String>,
}

/// Which images may be used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesConfig {
    /// Those that may be, wherever their registry is: `REGISTRY/`, `REGISTRY/FOLDER/`, `REPOSITORY`, `REPOSITORY:TAG`.
    pub allow: Vec<String>,
    /// What of the rest: `public` or `refused`.
    pub others: String,
    /// The same of single tenants, for whom it stands in place of the above.
    pub tenants: Vec<TenantImagesConfig>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantImagesConfig {
    /// Whose.
    pub tenant: String,
    #[serde(default)]
    pub allow: Vec<String>,
    #[serde(default = "public")]
    pub others: String,
}

fn public() -> String {
    "public".to_owned()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DefaultsConfig {
    pub ttl: GoDuration,
    pub max_ttl: GoDuration,
    pub max_lifetime: GoDuration,
    pub max_queue_wait: GoDuration,
    pub image: String,
    /// What root in a sandbox may do that asks for no less: `standard` or `minimal`. Nobody gets more.
    pub capabilities: CapabilitySet,
    /// Network of a sandbox that does not say: `none` or `bridge`.
    pub network: Network,
    pub memory_mb: u32,
    /// How many processes and threads a sandbox may have; 0: as many as it likes.
    pub pids_limit: u32,
    pub vcpus: u32,
    /// When a sync exec that names no timeout is ended.
    pub default_exec_timeout: GoDuration,
    pub max_exec_timeout: GoDuration,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// None: on as soon as there is a key.
    pub enabled: Option<bool>,
    pub api_key: Option<Text>,
    pub admin_api_key: Option<Text>,
    /// Keys by their SHA-256, each of a tenant.
    pub keys: Vec<KeyConfig>,
}

/// Text, also where it looks like a number.
#[derive(Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Text {
    Text(String),
    Number(u64),
}

impl Text {
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The public name, which logs may show.
    pub id: String,
    /// Whose sandboxes it opens.
    pub tenant: String,
    /// SHA-256 of the key, in hexadecimal.
    pub sha256: String,
    /// Whether it is a key of the operator, who may read the audit log of all tenants.
    #[serde(default)]
    pub admin: bool,
    /// Whether it may look at all that its tenant has, and change nothing.
    #[serde(default)]
    pub read_only: bool,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsConfig {
    /// The file of the master key, 64 hexadecimal digits; made when it is missing. `master.key` in the data directory when
    /// not given.
    pub key_file: Option<PathBuf>,
    /// The master key itself; over the file.
    pub key: Option<String>,
}

/// What is masked before anything is published, in all that is recorded.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactionConfig {
    pub rules: Vec<RedactionRuleConfig>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactionRuleConfig {
    /// What messages call it.
    pub name: String,
    /// A regular expression; whatever it matches becomes `*`.
    pub pattern: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditConfig {
    /// Whether what clients send to stdin is recorded.
    pub record_input: bool,
    /// The file of the key that signs checkpoints, 64 hexadecimal digits; made when it is missing. `audit.key` in the data
    /// directory when not given.
    pub key_file: Option<PathBuf>,
    /// The file of the public keys that checkpoints may be signed with, one a line; the one beside `key_file` when not given.
    pub public_key_file: Option<PathBuf>,
    /// Where checkpoints are written outside the database; `checkpoints.ndjson` in the data directory when not given.
    pub checkpoint_file: Option<PathBuf>,
    /// After how many events a checkpoint is made.
    pub checkpoint_events: u64,
    /// After how long a checkpoint is made, if anything was recorded.
    pub checkpoint_interval: GoDuration,
    /// How far the recorder may be behind before requests that change something are refused.
    pub max_lag: GoDuration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskConfig {
    /// How much has to be free on the disks of this process; below it no new work is taken. 0: nobody looks.
    pub min_free: Bytes,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            record_input: false,
            key_file: None,
            public_key_file: None,
            checkpoint_file: None,
            checkpoint_events: 10_000,
            checkpoint_interval: GoDuration(Duration::from_secs(60)),
            max_lag: GoDuration(Duration::from_secs(10)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncryptionConfig {
    /// Whether output and input are kept under a key of their sandbox, which can be destroyed.
    pub enabled: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionConfig {
    /// How long the bytes of output and input are kept.
    pub output: KeptFor,
    /// How long events are kept.
    pub lifecycle: KeptFor,
}

impl std::fmt::Debug for SecretsConfig {
    /// A configuration that is printed does not show the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretsConfig")
            .field("key_file", &self.key_file)
            .field("key", &self.key.as_ref().map(|_| "..."))
            .finish()
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhooksConfig {
    /// Whether a webhook may have an `http://` URL.
    pub allow_http: bool,
    /// Networks that webhooks may call though they are not public.
    pub allow_networks: Vec<String>,
    /// How long a receiver may take to answer.
    pub timeout: GoDuration,
    /// How long one event is tried before its webhook is suspended.
    pub give_up_after: GoDuration,
    /// How many requests may be under way at once.
    pub concurrency: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobsConfig {
    /// How many jobs may be at work at once, on all nodes together.
    pub max_running: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggingConfig {
    pub level: String,
    /// `text` or `json`.
    pub format: String,
}

impl std::fmt::Debug for AuthConfig {
    /// Keys are secrets: a configuration that is printed does not show them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthConfig")
            .field("enabled", &self.enabled)
            .field("api_key", &self.api_key.as_ref().map(|_| "..."))
            .field("admin_api_key", &self.admin_api_key.as_ref().map(|_| "..."))
            .field("keys", &self.keys)
            .finish()
    }
}

impl Default for Config {
    fn default() -> Self {
        let minutes = |count: u64| GoDuration(Duration::from_secs(count * 60));
        Self {
            listen: None,
            data_dir: None,
            agent: None,
            server: ServerConfig {
                host: "127.0.0.1".to_owned(),
                port: 7423,
                allowed_origins: Vec::new(),
                max_upload: None,
                slow_reader_limit: GoDuration(Duration::from_secs(30)),
                stalled_client_limit: GoDuration(Duration::from_secs(30)),
            },
            node: NodeConfig {
                id: None,
                capacity: 200,
                max_output: Bytes(4 << 30),
                linger: GoDuration(Duration::from_millis(100)),
            },
            nats: NatsConfig {
                url: None,
                user: None,
                password: None,
                password_file: None,
                credentials_file: None,
                nkey_file: None,
                ca_file: None,
                certificate_file: None,
                certificate_key_file: None,
                require_tls: false,
                prefix: "stacyvm".to_owned(),
                replicas: 1,
                max_events: Bytes(2 << 30),
                server_path: None,
            },
            database: DatabaseConfig { url: None, driver: "sqlite".to_owned(), path: None, dsn: None },
            providers: Configured::default(),
            images: ImagesConfig { allow: Vec::new(), others: public(), tenants: Vec::new() },
            defaults: DefaultsConfig {
                ttl: minutes(30),
                max_ttl: minutes(24 * 60),
                max_lifetime: minutes(24 * 60),
                max_queue_wait: minutes(5),
                image: "alpine:latest".to_owned(),
                capabilities: CapabilitySet::Standard,
                network: Network::None,
                memory_mb: 512,
                pids_limit: 256,
                vcpus: 1,
                default_exec_timeout: minutes(5),
                max_exec_timeout: minutes(24 * 60),
            },
            auth: AuthConfig { enabled: None, api_key: None, admin_api_key: None, keys: Vec::new() },
            secrets: SecretsConfig::default(),
            encryption: EncryptionConfig { enabled: false },
            retention: RetentionConfig { output: KeptFor(None), lifecycle: KeptFor(None) },
            redaction: RedactionConfig::default(),
            audit: AuditConfig::default(),
            disk: DiskConfig { min_free: Bytes(128 << 20) },
            limits: LimitsConfig::default(),
            webhooks: WebhooksConfig {
                allow_http: false,
                allow_networks: Vec::new(),
                timeout: GoDuration(Duration::from_secs(10)),
                give_up_after: minutes(24 * 60),
                concurrency: 256,
            },
            artifacts: ArtifactsConfig::default(),
            jobs: JobsConfig { max_running: 10_000 },
            logging: LoggingConfig { level: "info".to_owned(), format: "text".to_owned() },
            file: None,
            remarks: Vec::new(),
        }
    }
}

/// `localhost` is the loopback of IPv4, whatever the resolver would say first.
fn address_of(text: &str) -> Option<SocketAddr> {
    let text = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.starts_with(':') => format!("0.0.0.0{text}"),
        None => text.to_owned(),
    };
    let mut found: Vec<SocketAddr> = text.to_socket_addrs().ok()?.collect();
    found.sort_by_key(SocketAddr::is_ipv6);
    found.into_iter().next()
}

impl Config {
    /// The address to listen on. A host name is asked for; nothing before the port means all addresses.
    pub fn listen_address(&self) -> anyhow::Result<SocketAddr> {
        match &self.listen {
            Some(listen) => {
                address_of(listen).with_context(|| format!("listen: {listen:?} is not HOST:PORT"))
            }
            None => {
                let host = &self.server.host;
                let bare = host.trim_start_matches('[').trim_end_matches(']');
                let full = if bare.contains(':') {
                    format!("[{bare}]:{}", self.server.port)
                } else {
                    format!("{bare}:{}", self.server.port)
                };
                address_of(&full).with_context(|| {
                    format!("server.host: {host:?} is no address of this host and no name of one")
                })
            }
        }
    }

    /// Where state lives.
    pub fn data_dir(&self) -> PathBuf {
        if let Some(dir) = &self.data_dir {
            return dir.clone();
        }
        if rustix::process::geteuid().is_root() {
            return "/var/lib/stacyvm".into();
        }
        std::env::var_os("HOME")
            .map_or_else(|| ".stacyvm".into(), |home| PathBuf::from(home).join(".stacyvm"))
    }

    /// What no type can say. A message begins with the key.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        self.listen_address()?;
        if self.providers.default.as_deref().is_some_and(|name| name.is_empty() || name == "auto") {
            // The first that works, which is what not naming one means.
            self.providers.default = None;
        }
        match self.database.driver.to_ascii_lowercase().as_str() {
            "" | "sqlite" | "sqlite3" => self.database.driver = "sqlite".to_owned(),
            "postgres" | "postgresql" => self.database.driver = "postgres".to_owned(),
            other => bail!("database.driver: {other:?} is neither sqlite nor postgres"),
        }
        if !matches!(self.logging.format.as_str(), "text" | "json") {
            bail!("logging.format: {:?} is neither text nor json", self.logging.format);
        }
        for (name, settings) in self.providers.all() {
            settings.check().map_err(|error| anyhow::anyhow!("providers.{name}.{error}"))?;
        }
        if !matches!(self.logging.level.as_str(), "off" | "error" | "warn" | "info" | "debug" | "trace") {
            bail!("logging.level: {:?} is none of off, error, warn, info, debug, trace", self.logging.level);
        }
        self.limits.limits(None)?;
        self.artifacts.check()?;
        if self.node.capacity == 0 {
            bail!("node.capacity: must be at least 1");
        }
        if self.node.linger.0 > Duration::from_secs(10) {
            bail!("node.linger: must be at most 10s");
        }
        if self.webhooks.timeout.0.is_zero() || self.webhooks.concurrency == 0 {
            bail!("webhooks.timeout: it and webhooks.concurrency must be more than zero");
        }
        if self.jobs.max_running == 0 {
            bail!("jobs.max_running: must be at least 1");
        }
        if self.audit.checkpoint_events == 0 {
            bail!("audit.checkpoint_events: must be at least 1");
        }
        if self.audit.max_lag.0 < Duration::from_secs(3) {
            // The recorder speaks every second.
            bail!("audit.max_lag: must be at least 3s");
        }
        if self.defaults.ttl.0 > self.defaults.max_ttl.0 {
            bail!("defaults.ttl: is longer than defaults.max_ttl");
        }
        Ok(())
    }
}
