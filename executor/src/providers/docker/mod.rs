//! Boxes as containers of a Docker engine.
//!
//! Only this directory knows bollard. The engine's exec, attach and archive calls are never used: what goes on in a
//! box goes through its agent.

mod address;
mod body;
mod bridge;
mod config;
mod create;
mod errors;
mod exceptions;
mod groups;
mod list;
mod nft;
mod pull;
mod reach;
mod registry;
mod remove;
mod rules;
mod settings;
mod stats;
mod version;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::SystemInfo;
use bollard::{API_DEFAULT_VERSION, Docker};
use events::{ProviderName, SandboxId};
use tokio::sync::OnceCell;

pub use config::{DockerConfig, PullPolicy};
pub use exceptions::{NetworkException, NetworkExceptionError};
pub use settings::{ImageAlias, Settings};

pub use crate::resolver::{Name, NotAName};
use registry::{ProgressAsAsked, as_asked};

use crate::provider::{
    BoxHandle, BoxOrder, BoxStats, Capabilities, Capability, CreateError, DestroyError, Health, HealthError,
    ListError, Provider, PullProgress, StatsError,
};
use crate::providers::host::Host;
use crate::providers::remover::Remover;
use crate::providers::trash::Trash;
use crate::providers::{run_dir, seccomp};
use crate::resolver::Resolver;

/// How long the engine may take to begin its answer, in seconds. Starting a box on a machine under heavy load takes
/// many.
const ENGINE_TIMEOUT_SECONDS: u64 = 120;
/// How long it may take to tell of itself: nothing else waits for that for longer.
const ABOUT_PATIENCE: Duration = Duration::from_secs(3);

/// Makes boxes with a Docker engine.
pub struct DockerProvider {
    config: DockerConfig,
    seccomp: String,
    engine: OnceCell<Docker>,
    /// Whether the engine sees what this process mounts.
    mounts_seen: OnceCell<bool>,
    about: OnceCell<SystemInfo>,
    remover: Remover,
    trash: Trash,
    set_aside: remove::SetAside,
    pulls: Arc<pull::Pulls>,
    bridges: bridge::Bridges,
    resolver: Resolver,
    groups: groups::Groups,
}

/// Why the provider cannot work as configured.
#[derive(Debug, thiserror::Error)]
pub enum DockerSetupError {
    /// The deployment would not do as part of a container name.
    #[error(
        "deployment {0:?} must be 1 to 40 letters, digits, '_', '.' and '-', and begin with a letter or digit"
    )]
    Deployment(String),
    /// A path must be absolute: the engine does not know our working directory.
    #[error("{what} {path:?} must be an absolute path")]
    Relative {
        /// What the path is of.
        what: &'static str,
        /// The path.
        path: PathBuf,
    },
    /// The agent is not where it should be.
    #[error("there is no agent at {path:?}")]
    Agent {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot prepare the data directory {path:?}")]
    DataDir {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The seccomp profile cannot be read.
    #[error("cannot read the seccomp profile {path:?}")]
    Seccomp {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl DockerProvider {
    /// Checks the configuration and makes the data directory. The engine need not be up yet.
    pub fn new(config: DockerConfig) -> Result<Self, DockerSetupError> {
        let bytes = config.deployment.as_bytes();
        if bytes.is_empty()
            || bytes.len() > 40
            || !bytes[0].is_ascii_alphanumeric()
            || !bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte))
        {
            return Err(DockerSetupError::Deployment(config.deployment));
        }
        for (what, path) in [("the data directory", &config.data_dir), ("the agent", &config.agent_path)] {
            if !path.is_absolute() {
                return Err(DockerSetupError::Relative { what, path: path.clone() });
            }
        }
        if let Err(source) = std::fs::metadata(&config.agent_path) {
            return Err(DockerSetupError::Agent { path: config.agent_path, source });
        }
        let data_dir = |source| DockerSetupError::DataDir { path: config.data_dir.clone(), source };
        std::fs::create_dir_all(&config.data_dir).map_err(data_dir)?;
        // A run directory is writable for whatever user the box runs as; nobody else on the host may get that far.
        std::fs::set_permissions(&config.data_dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))
            .map_err(data_dir)?;
        let seccomp = match &config.seccomp_profile {
            None => seccomp::profile(),
            Some(path) => std::fs::read_to_string(path)
                .map_err(|source| DockerSetupError::Seccomp { path: path.clone(), source })?,
        };
        let remover = Remover::new(&config.agent_path);
        let trash = Trash::new(&config.data_dir, remover.clone())
            .map_err(|source| DockerSetupError::DataDir { path: config.data_dir.clone(), source })?;
        let reach = reach::Reach::new(&config.allow_networks);
        let inside = Box::new(move |address| reach.leads_inside(address));
        let resolver = Resolver::new(&config.dns_servers, config.allow_names.clone(), inside);
        Ok(Self {
            config,
            seccomp,
            engine: OnceCell::new(),
            mounts_seen: OnceCell::new(),
            about: OnceCell::new(),
            remover,
            trash,
            set_aside: remove::SetAside::default(),
            pulls: Arc::default(),
            bridges: bridge::Bridges::default(),
            resolver,
            groups: groups::Groups::default(),
        })
    }

    /// The engine, with its API version agreed on.
    async fn engine(&self) -> Result<&Docker, bollard::errors::Error> {
        self.engine
            .get_or_try_init(|| async {
                let socket = self.config.socket.to_string_lossy();
                Docker::connect_with_unix(&socket, ENGINE_TIMEOUT_SECONDS, API_DEFAULT_VERSION)?
                    .negotiate_version()
                    .await
            })
            .await
    }

    /// Whether this process may mount, and the engine will find what it mounted.
    async fn mounts_are_seen(&self) -> bool {
        let look =
            async || run_dir::may_mount() && same_namespace(&self.config.socket, "mnt").await == Some(true);
        *self.mounts_seen.get_or_init(look).await
    }

    /// What the engine says of itself. It is asked until it has answered once.
    async fn about(&self) -> Option<&SystemInfo> {
        let ask = async || {
            let engine = self.engine().await.ok()?;
            tokio::time::timeout(ABOUT_PATIENCE, engine.info()).await.ok()?.ok()
        };
        self.about.get_or_try_init(|| async { ask().await.ok_or(()) }).await.ok()
    }

    fn container_name(&self, id: SandboxId) -> String {
        body::container_name(&self.config, id)
    }

    fn run_dir(&self, id: SandboxId) -> PathBuf {
        self.config.data_dir.join(id.to_string())
    }

    fn handle(&self, id: SandboxId, runtime_id: String, running: bool) -> BoxHandle {
        BoxHandle {
            id,
            provider: self.config.name.clone(),
            runtime_id,
            agent: run_dir::agent(&self.run_dir(id)),
            running,
            address: None,
        }
    }
}

#[async_trait]
impl Provider for DockerProvider {
    fn name(&self) -> &ProviderName {
        &self.config.name
    }

    fn capabilities(&self) -> Capabilities {
        let can = [
            (Capability::ImagePull, self.config.pull == PullPolicy::Missing),
            (Capability::Network, self.bridges.refusal().is_none()),
            (Capability::ReadOnlyRoot, true),
            (Capability::Limits, true),
            (Capability::Stats, true),
        ];
        Capabilities { runtimes: self.config.runtimes.clone(), ..Capabilities::new("container", can) }
    }

    async fn create(&self, order: &BoxOrder, progress: &dyn PullProgress) -> Result<BoxHandle, CreateError> {
        let chosen = self.chosen(order)?;
        let asked = &order.spec.image;
        // The record keeps the name that was asked for; only the engine hears the other one.
        let mut told = order.clone();
        told.spec.image.clone_from(&chosen.name);
        let progress = ProgressAsAsked { progress, asked };
        self.create_box(&told, &chosen, &progress).await.map_err(|error| as_asked(error, asked))
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), DestroyError> {
        self.remove_box(id).await
    }

    async fn list(&self) -> Result<Vec<BoxHandle>, ListError> {
        self.list_boxes().await
    }

    async fn stats(&self, id: SandboxId) -> Result<BoxStats, StatsError> {
        self.box_stats(id).await
    }

    async fn upkeep(&self) {
        self.groups.tidy_up_at_start(&self.config);
        self.look_after_networks().await;
    }

    async fn directories(&self) -> Vec<PathBuf> {
        let mut all = vec![self.config.data_dir.clone()];
        // Its path is one of ours only where both see the same mounts.
        if same_namespace(&self.config.socket, "mnt").await == Some(true)
            && let Some(root) = self.about().await.and_then(|about| about.docker_root_dir.clone())
        {
            all.push(root.into());
        }
        all
    }

    async fn health(&self) -> Result<Health, HealthError> {
        let began = std::time::Instant::now();
        let failed = |source: bollard::errors::Error| HealthError {
            reason: "the Docker engine does not answer".to_owned(),
            source: Some(Box::new(source)),
        };
        let engine = self.engine().await.map_err(failed)?;
        let version = tokio::time::timeout(Duration::from_secs(10), engine.version())
            .await
            .unwrap_or(Err(bollard::errors::Error::RequestTimeoutError))
            .map_err(failed)?
            .version
            .unwrap_or_default();
        let mut warnings = version::warnings(&version);
        if !self.mounts_are_seen().await {
            warnings.push(run_dir::NOT_APART.to_owned());
        }
        let host = Host::look();
        warnings.extend(host.ptys_shared());
        let options = self.about().await.map(|about| about.security_options.as_deref().unwrap_or_default());
        warnings.extend(options.and_then(|options| host.users_shared(options)));
        if let Some(reason) = self.bridges.trouble() {
            let reason = format!("network_rules: sandboxes may reach what they must not: {reason}");
            return Err(HealthError { reason, source: None });
        }
        if let Some(reason) = self.bridges.deaf() {
            let reason = format!("network_names: sandboxes with a network hear of no names: {reason}");
            return Err(HealthError { reason, source: None });
        }
        if let Some(reason) = self.bridges.refusal() {
            warnings.push(format!("sandboxes that ask for a network are refused: {reason}"));
        }
        if self.config.allow_networks.iter().any(NetworkException::is_v6) {
            warnings
                .push("sandboxes have no IPv6: what allow_networks says of it has no effect yet".to_owned());
        }
        Ok(Health { latency: began.elapsed(), warnings, version })
    }
}

/// Whether whoever listens on the engine's socket is in the same namespace of this kind (`mnt`, `net`) as this process. `None` where
/// that cannot be seen: one of them is in a container.
async fn same_namespace(socket: &Path, kind: &str) -> Option<bool> {
    let stream = tokio::net::UnixStream::connect(socket).await.ok()?;
    // 0 is somebody outside of our processes.
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 0)?;
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/{kind}")).ok();
    Some(namespace("self")? == namespace(&pid.to_string())?)
}
