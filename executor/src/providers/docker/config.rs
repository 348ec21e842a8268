use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use events::{IdError, NodeId, ProviderName};
use policy::ImagePolicy;

use super::{Name, NetworkException};

/// How to reach an engine and what boxes are made of.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// The name of the provider.
    pub name: ProviderName,
    /// The engine's unix socket.
    pub socket: PathBuf,
    /// Holds a directory per box, with the agent's socket. The engine must see it under the same path.
    pub data_dir: PathBuf,
    /// The agent, a static executable. The engine must see it under the same path.
    pub agent_path: PathBuf,
    /// This node: boxes of other nodes on the same engine are left alone.
    pub node: NodeId,
    /// Keeps several installations (or tests) on one engine apart: letters, digits, `_`, `.` and `-`.
    pub deployment: String,
    /// How the names of networks begin: each box that asks for a bridge has one of its own.
    pub bridge_network: String,
    /// What those boxes may reach though it is not public.
    pub allow_networks: Vec<NetworkException>,
    /// Whom our resolver asks for names on their behalf. Empty: whom this machine asks.
    pub dns_servers: Vec<Ipv4Addr>,
    /// Names of the inside that are asked for all the same, with all below them.
    pub allow_names: Vec<Name>,
    /// What to do about an image that is not here.
    pub pull: PullPolicy,
    /// Image names, each with its tag, and the image that the engine is asked for instead: a mirror, or one made on
    /// this machine where no registry can be reached.
    pub image_aliases: BTreeMap<String, String>,
    /// Which images may be used, by whom. Aliases are above it.
    pub images: ImagePolicy,
    /// The runtimes that a spec may name; one that names none gets the first. Empty: the engine's own, and no other.
    pub runtimes: Vec<String>,
    /// Whether boxes of each tenant are in a control group of their own, where the engine makes control groups itself (its driver
    /// is `cgroupfs`). Otherwise they are where the engine puts all.
    pub group_by_tenant: bool,
    /// A seccomp profile in the engine's JSON form, instead of the built-in one.
    pub seccomp_profile: Option<PathBuf>,
}

/// What to do about an image that is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Pull it.
    #[default]
    Missing,
    /// Fail: only images that are here may be used.
    Never,
}

impl DockerConfig {
    /// The usual configuration: the engine of this machine, deployment `stacyvm`.
    pub fn new(
        data_dir: impl Into<PathBuf>,
        agent_path: impl Into<PathBuf>,
        node: NodeId,
    ) -> Result<Self, IdError> {
        Ok(Self {
            name: "docker".parse()?,
            socket: "/var/run/docker.sock".into(),
            data_dir: data_dir.into(),
            agent_path: agent_path.into(),
            node,
            deployment: "stacyvm".to_owned(),
            bridge_network: "stacyvm".to_owned(),
            allow_networks: Vec::new(),
            dns_servers: Vec::new(),
            allow_names: Vec::new(),
            pull: PullPolicy::default(),
            image_aliases: BTreeMap::new(),
            images: ImagePolicy::default(),
            runtimes: Vec::new(),
            group_by_tenant: true,
            seccomp_profile: None,
        })
    }
}
