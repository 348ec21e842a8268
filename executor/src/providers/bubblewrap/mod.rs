//! Boxes made of namespaces by bubblewrap: no daemon, a few milliseconds a box.
//!
//! A box is a process tree in namespaces of its own, over a root file system that is the image plus what the box
//! changed, with the system calls of [`seccomp`](super::seccomp), in control groups where the machine has them. It
//! shares the kernel with the host, as a container does. Inside it has root and all other users; on the host these are
//! a range of unprivileged ones.

mod boxes;
mod cgroup;
mod config;
mod confine;
mod ids;
mod images;
mod kernel;
mod launch;
mod names;
mod ports;
mod record;
mod settings;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use events::{ProviderName, SandboxId};
use tokio::process::Command;
use tokio::sync::OnceCell;

pub use config::{BOX_USER, BubblewrapConfig, RootfsSource};
pub use settings::Settings;

use crate::provider::{
    BoxHandle, BoxOrder, BoxStats, Capabilities, Capability, CreateError, DestroyError, Health, HealthError,
    ListError, Provider, PullProgress, StatsError,
};
use crate::providers::host::Host;
use crate::providers::remover::Remover;
use crate::providers::run_dir;
use crate::providers::trash::Trash;

/// Makes boxes with bubblewrap.
pub struct BubblewrapProvider {
    config: BubblewrapConfig,
    /// Whom boxes run as; nobody else than this process when it is not root.
    outside: Option<confine::Outside>,
    images: images::Images,
    /// Or why there are no limits.
    cgroups: Arc<Result<cgroup::Cgroups, String>>,
    root_mode: OnceCell<launch::RootMode>,
    trash: Trash,
}

/// Why the provider cannot work as configured.
#[derive(Debug, thiserror::Error)]
pub enum BubblewrapSetupError {
    /// A path must be absolute.
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
        source: io::Error,
    },
    /// A directory cannot be used.
    #[error("cannot prepare {path:?}")]
    Directory {
        /// The path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The control group must stay below the root of its tree.
    #[error("{0:?} is not the name of a control group")]
    CgroupParent(String),
    /// Each directory that boxes could be put together in holds something that they need.
    #[error(
        "the data directory, the image directory, the agent and bwrap must leave one of /mnt, /media, /srv, /opt and /tmp free"
    )]
    NoStage,
    /// Boxes must not run as root on the host.
    #[error("boxes must not run as user or group 0")]
    Root,
}

impl BubblewrapProvider {
    /// Checks the configuration, makes the directories and finds the control groups.
    pub fn new(mut config: BubblewrapConfig) -> Result<Self, BubblewrapSetupError> {
        let paths = [
            ("the data directory", &config.data_dir),
            ("the image directory", &config.image_dir),
            ("the agent", &config.agent_path),
        ];
        for (what, path) in paths {
            if !path.is_absolute() {
                return Err(BubblewrapSetupError::Relative { what, path: path.clone() });
            }
        }
        if let Err(source) = std::fs::metadata(&config.agent_path) {
            return Err(BubblewrapSetupError::Agent { path: config.agent_path, source });
        }
        let parent = &config.cgroup_parent;
        if parent.is_empty() || parent.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(BubblewrapSetupError::CgroupParent(config.cgroup_parent));
        }
        if config.user.0 == 0 || config.user.1 == 0 {
            return Err(BubblewrapSetupError::Root);
        }
        for path in
            [config.data_dir.clone(), config.image_dir.clone(), config.data_dir.join(boxes::DIRECTORY)]
        {
            let failed = |source| BubblewrapSetupError::Directory { path: path.clone(), source };
            std::fs::create_dir_all(&path).map_err(failed)?;
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).map_err(failed)?;
        }
        for path in [&mut config.data_dir, &mut config.image_dir, &mut config.agent_path] {
            // Without links: a path through one may lead where a box has something else mounted.
            *path = std::fs::canonicalize(&*path)
                .map_err(|source| BubblewrapSetupError::Directory { path: path.clone(), source })?;
        }
        let outside = if rustix::process::geteuid().is_root() {
            let mut needed = vec![&*config.data_dir, &*config.image_dir, &*config.agent_path, &*config.bwrap];
            needed.extend(config.images.values().filter_map(RootfsSource::directory));
            Some(confine::Outside::new(config.user, &needed).ok_or(BubblewrapSetupError::NoStage)?)
        } else {
            None
        };
        let boxes = config.data_dir.join(boxes::DIRECTORY);
        let trash = Trash::new(&boxes, Remover::new(&config.agent_path))
            .map_err(|source| BubblewrapSetupError::Directory { path: boxes, source })?;
        Ok(Self {
            outside,
            images: images::Images::default(),
            cgroups: Arc::new(cgroup::Cgroups::find(&config.cgroup_parent)),
            root_mode: OnceCell::new(),
            trash,
            config,
        })
    }

    async fn bwrap_version(&self) -> io::Result<String> {
        let output = Command::new(&self.config.bwrap).arg("--version").stdin(Stdio::null()).output().await?;
        let said = String::from_utf8_lossy(&output.stdout);
        Ok(said.trim().trim_start_matches("bubblewrap ").to_owned())
    }

    /// Makes the namespaces of a box around nothing: many kernels are told to refuse them to users.
    async fn try_namespaces(&self) -> io::Result<()> {
        let mut command = Command::new(&self.config.bwrap);
        let mut confinement = confine::Confinement::new(self.outside.as_ref())?;
        launch::unshare(&mut command, self.outside.as_ref(), &mut confinement)?;
        command
            .args(["--unshare-net", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "true"])
            .current_dir("/")
            .stdin(Stdio::null());
        confinement.apply(&mut command);
        let output = command.output().await?;
        if output.status.success() {
            return Ok(());
        }
        Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

#[async_trait]
impl Provider for BubblewrapProvider {
    fn name(&self) -> &ProviderName {
        &self.config.name
    }

    fn capabilities(&self) -> Capabilities {
        let can = [
            (Capability::Network, self.config.host_network),
            (Capability::ReadOnlyRoot, true),
            (Capability::Limits, self.cgroups.is_ok()),
            (Capability::Stats, self.cgroups.is_ok()),
        ];
        Capabilities::new("namespaces", can)
    }

    async fn create(&self, order: &BoxOrder, _progress: &dyn PullProgress) -> Result<BoxHandle, CreateError> {
        self.create_box(order).await
    }

    async fn destroy(&self, id: SandboxId) -> Result<(), DestroyError> {
        self.destroy_box(id).await
    }

    async fn list(&self) -> Result<Vec<BoxHandle>, ListError> {
        self.list_boxes()
    }

    async fn stats(&self, id: SandboxId) -> Result<BoxStats, StatsError> {
        self.box_stats(id).await
    }

    async fn directories(&self) -> Vec<PathBuf> {
        vec![self.config.data_dir.clone(), self.config.data_dir.join(boxes::DIRECTORY)]
    }

    async fn health(&self) -> Result<Health, HealthError> {
        let began = Instant::now();
        let failed = |reason: &str| {
            let reason = reason.to_owned();
            move |source: io::Error| HealthError { reason, source: Some(Box::new(source)) }
        };
        let version = self.bwrap_version().await.map_err(failed("bubblewrap cannot be run"))?;
        self.try_namespaces().await.map_err(failed("bubblewrap cannot make namespaces on this machine"))?;
        let mut warnings = Vec::new();
        if let Err(reason) = &*self.cgroups {
            warnings.push(format!("sandboxes have no limits on memory, processes and CPU time: {reason}"));
        }
        if self.outside.is_none() || !run_dir::may_mount() {
            warnings.push(run_dir::NOT_APART.to_owned());
        }
        warnings.extend(Host::look().ptys_shared());
        if self.config.host_network {
            warnings.push(
                "host_network is on: a sandbox that asks for a network gets the host's, with its loopback and \
                 without a rule"
                    .to_owned(),
            );
        }
        Ok(Health { latency: began.elapsed(), version, warnings })
    }
}
