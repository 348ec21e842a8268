use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use events::{IdError, ProviderName};

/// Whom boxes run as on the host, unless told otherwise: above all ranges that distributions, systemd and
/// subordinate ids hand out.
pub const BOX_USER: u32 = 1_990_000_000;

/// What boxes are made of.
#[derive(Debug, Clone)]
pub struct BubblewrapConfig {
    /// The name of the provider.
    pub name: ProviderName,
    /// Holds a directory per box. No other installation may use it.
    pub data_dir: PathBuf,
    /// Holds the unpacked root file systems. Installations may share it.
    pub image_dir: PathBuf,
    /// The agent, a static executable.
    pub agent_path: PathBuf,
    /// The program `bwrap`.
    pub bwrap: PathBuf,
    /// Root file systems by image name, tag included.
    pub images: BTreeMap<String, RootfsSource>,
    /// What root's user and group in boxes are on the host, when this process is root. All others in a box follow
    /// them: 65,536 of each. Otherwise boxes have one user and group, this process's.
    pub user: (u32, u32),
    /// The control group that holds those of the boxes.
    pub cgroup_parent: String,
    /// Whether boxes that ask for a bridge get the network of the host, its loopback included. There is no bridge
    /// here; without this they are refused.
    pub host_network: bool,
}

/// Where a root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootfsSource {
    /// A tar file, unpacked once into the image directory.
    Tar(PathBuf),
    /// A directory, used as it is and never written to. What is user 0's in a box must belong to
    /// [`BubblewrapConfig::user`], and so on for those that follow.
    Directory(PathBuf),
}

impl RootfsSource {
    pub(super) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Tar(_) => None,
        }
    }
}

impl BubblewrapConfig {
    /// The usual configuration, without images.
    pub fn new(data_dir: impl Into<PathBuf>, agent_path: impl Into<PathBuf>) -> Result<Self, IdError> {
        let data_dir = data_dir.into();
        Ok(Self {
            name: "bubblewrap".parse()?,
            image_dir: data_dir.join("images"),
            data_dir,
            agent_path: agent_path.into(),
            bwrap: "bwrap".into(),
            images: BTreeMap::new(),
            user: (BOX_USER, BOX_USER),
            cgroup_parent: "stacyvm".to_owned(),
            host_network: false,
        })
    }
}
