//! The section `providers.bubblewrap` of the configuration.

use std::path::PathBuf;
use std::sync::Arc;

use events::PoolName;
use serde::{Deserialize, Serialize};

use super::{BubblewrapConfig, BubblewrapProvider, BubblewrapSetupError, RootfsSource};
use crate::provider::Provider;
use crate::providers::registry::{self, SetupError, Site};

/// What sandboxes of namespaces are made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// None: on where `bwrap` and a root file system are.
    pub enabled: Option<bool>,
    /// The pool that it serves; none: the one that is called as the provider.
    pub pool: Option<PoolName>,
    /// The tar archive of the root file system that every image name stands for.
    pub rootfs: PathBuf,
    /// The image names that it has.
    pub images: Vec<String>,
    /// Whether sandboxes that ask for a bridge get the network of the host, its loopback included; else they are refused.
    pub host_network: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: None,
            pool: None,
            rootfs: "/var/cache/stacyvm/base.tar".into(),
            images: ["alpine:latest", "python:3.12", "stacyvm/base:local"].map(str::to_owned).to_vec(),
            host_network: false,
        }
    }
}

impl registry::Settings for Settings {
    fn enabled(&self) -> Option<bool> {
        self.enabled
    }

    fn pool(&self) -> Option<&PoolName> {
        self.pool.as_ref()
    }

    fn is_here(&self) -> bool {
        in_path("bwrap") && self.rootfs.is_file()
    }

    fn make(&self, site: Site) -> Result<Arc<dyn Provider>, SetupError> {
        if !self.rootfs.is_file() {
            let reason = format!("{} does not exist; scripts/setup makes one", self.rootfs.display());
            return Err(SetupError::of("rootfs", reason));
        }
        let base = BubblewrapConfig::new(site.data_dir, site.agent_path)
            .map_err(|error| SetupError::Failed(error.into()))?;
        let rootfs = RootfsSource::Tar(self.rootfs.clone());
        let provider = BubblewrapProvider::new(BubblewrapConfig {
            images: self.images.iter().map(|name| (name.clone(), rootfs.clone())).collect(),
            cgroup_parent: site.deployment,
            host_network: self.host_network,
            ..base
        });
        let failed = |error: BubblewrapSetupError| SetupError::Failed(error.into());
        Ok(Arc::new(provider.map_err(failed)?))
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}
