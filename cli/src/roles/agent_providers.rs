//! The box-makers of this node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use events::ProviderName;
use executor::provider::Provider;
use executor::providers::bubblewrap::{BubblewrapConfig, BubblewrapProvider, RootfsSource};
use executor::providers::docker::{DockerConfig, DockerProvider, Name, NetworkException, PullPolicy};

use super::agent_program;
use crate::config::Config;
use crate::installation::{self, Installation};

/// The box-makers that are on, the preferred first.
pub struct Providers {
    pub all: Vec<Arc<dyn Provider>>,
}

impl Providers {
    /// Those that the configuration turns on, or that are found.
    pub async fn find(config: &Config, installation: &Installation) -> anyhow::Result<Self> {
        let agent = agent_program::find(config).await?;
        let mut all: Vec<Arc<dyn Provider>> = Vec::new();
        let docker = &config.providers.docker;
        let socket = docker.socket.strip_prefix("unix://").unwrap_or(&docker.socket);
        if docker.enabled.unwrap_or_else(|| Path::new(socket).exists()) {
            all.push(Arc::new(make_docker(config, installation, &agent, socket)?));
        }
        let bubblewrap = &config.providers.bubblewrap;
        let found = || in_path("bwrap") && bubblewrap.rootfs.is_file();
        if bubblewrap.enabled.unwrap_or_else(found) {
            all.push(Arc::new(make_bubblewrap(config, installation, &agent)?));
        }
        if all.is_empty() {
            bail!("no provider is on: start a Docker engine, or install bubblewrap and run scripts/setup");
        }
        if let Some(name) = &config.providers.default
            && let Some(index) = all.iter().position(|provider| provider.name().as_str() == name)
        {
            all.swap(0, index);
        }
        Ok(Self { all })
    }

    /// Their names.
    pub fn names(&self) -> BTreeSet<ProviderName> {
        self.all.iter().map(|provider| provider.name().clone()).collect()
    }

    /// Their names, for the log.
    pub fn list(&self) -> String {
        self.all.iter().map(|provider| provider.name().as_str()).collect::<Vec<_>>().join(", ")
    }

    /// The preferred one.
    pub fn first(&self) -> Option<ProviderName> {
        self.all.first().map(|provider| provider.name().clone())
    }
}

fn make_docker(
    config: &Config,
    installation: &Installation,
    agent: &Path,
    socket: &str,
) -> anyhow::Result<DockerProvider> {
    let docker = &config.providers.docker;
    let node = installation::node_id(config)?;
    let base = DockerConfig::new(installation.path("docker"), agent, node).context("docker")?;
    DockerProvider::new(DockerConfig {
        socket: socket.into(),
        deployment: installation.name.clone(),
        bridge_network: docker.bridge_network.clone(),
        allow_networks: allow_networks(&docker.allow_networks)?,
        dns_servers: dns_servers(&docker.dns_servers)?,
        allow_names: allow_names(&docker.allow_names)?,
        pull: if docker.pull == "never" { PullPolicy::Never } else { PullPolicy::Missing },
        image_aliases: docker
            .image_aliases
            .iter()
            .map(|alias| (alias.name.clone(), alias.image.clone()))
            .collect(),
        images: super::images::image_policy(config)?,
        runtimes: docker.runtimes.clone(),
        group_by_tenant: docker.group_by_tenant,
        seccomp_profile: (docker.seccomp_profile != "default").then(|| docker.seccomp_profile.clone().into()),
        ..base
    })
    .context("cannot use Docker")
}

/// What sandboxes with a network may reach though it is not public.
fn allow_networks(entries: &[String]) -> anyhow::Result<Vec<NetworkException>> {
    if entries.len() > MOST_EXCEPTIONS {
        bail!(
            "providers.docker.allow_networks has more than {MOST_EXCEPTIONS} entries: name larger networks"
        );
    }
    let parsed: Result<_, _> = entries.iter().map(|entry| entry.parse()).collect();
    parsed.context("providers.docker.allow_networks")
}

/// Names of the inside that those may ask for.
fn allow_names(entries: &[String]) -> anyhow::Result<Vec<Name>> {
    if entries.len() > MOST_EXCEPTIONS {
        bail!(
            "providers.docker.allow_names has more than {MOST_EXCEPTIONS} entries: name what is above them"
        );
    }
    let parsed: Result<_, _> = entries.iter().map(|entry| entry.parse()).collect();
    parsed.context("providers.docker.allow_names")
}

/// Whom the node asks on behalf of sandboxes with a network.
fn dns_servers(entries: &[String]) -> anyhow::Result<Vec<Ipv4Addr>> {
    let parse = |entry: &String| {
        let address: Ipv4Addr = entry
            .trim()
            .parse()
            .with_context(|| format!("providers.docker.dns_servers: {entry:?} is no IPv4 address"))?;
        if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            bail!("providers.docker.dns_servers: {entry:?} is nobody's address");
        }
        Ok(address)
    };
    if entries.len() > MOST_SERVERS {
        bail!("providers.docker.dns_servers has more than {MOST_SERVERS} entries: resolvers ask no more");
    }
    entries.iter().map(parse).collect()
}

/// Every packet of a sandbox may be held to all of them.
const MOST_EXCEPTIONS: usize = 256;
/// As many as name servers in a `resolv.conf`.
const MOST_SERVERS: usize = 3;

fn make_bubblewrap(
    config: &Config,
    installation: &Installation,
    agent: &Path,
) -> anyhow::Result<BubblewrapProvider> {
    let bubblewrap = &config.providers.bubblewrap;
    if !bubblewrap.rootfs.is_file() {
        bail!(
            "providers.bubblewrap.rootfs: {} does not exist; scripts/setup makes one",
            bubblewrap.rootfs.display()
        );
    }
    let base = BubblewrapConfig::new(installation.path("bubblewrap"), agent).context("bubblewrap")?;
    let rootfs = RootfsSource::Tar(bubblewrap.rootfs.clone());
    BubblewrapProvider::new(BubblewrapConfig {
        images: bubblewrap.images.iter().map(|name| (name.clone(), rootfs.clone())).collect(),
        cgroup_parent: installation.name.clone(),
        host_network: bubblewrap.host_network,
        ..base
    })
    .context("cannot use bubblewrap")
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    #[test]
    fn what_sandboxes_may_reach_is_read_and_what_is_wrong_names_its_key() {
        assert_eq!(allow_networks(&texts(&["10.0.0.5:443", "[fd00::5]:443"])).unwrap().len(), 2);
        for wrong in ["mirror:443", "0.0.0.0/0", "10.0.0.5/8", "169.254.0.0/16"] {
            let error = format!("{:#}", allow_networks(&texts(&[wrong])).unwrap_err());
            assert!(
                error.starts_with("providers.docker.allow_networks: ") && error.contains(wrong),
                "{error}"
            );
        }
        allow_networks(&vec!["10.0.0.5".to_owned(); MOST_EXCEPTIONS + 1]).unwrap_err();
    }

    #[test]
    fn name_servers_are_addresses_and_names_are_names() {
        let servers = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 53)];
        assert_eq!(dns_servers(&texts(&["10.0.0.2", "127.0.0.53"])).unwrap(), servers);
        assert_eq!(allow_names(&texts(&["mirror.internal", "Db.corp."])).unwrap().len(), 2);
        for wrong in ["*.corp", "10.0.0.2", ".", "a b"] {
            let error = format!("{:#}", allow_names(&texts(&[wrong])).unwrap_err());
            assert!(error.starts_with("providers.docker.allow_names: ") && error.contains(wrong), "{error}");
        }
        allow_names(&vec!["x.corp".to_owned(); MOST_EXCEPTIONS + 1]).unwrap_err();
        for wrong in ["0.0.0.0", "255.255.255.255", "ns.example", "fd00::53", "10.0.0.2:53"] {
            let error = format!("{:#}", dns_servers(&texts(&[wrong])).unwrap_err());
            assert!(error.starts_with("providers.docker.dns_servers: ") && error.contains(wrong), "{error}");
        }
        dns_servers(&vec!["10.0.0.2".to_owned(); MOST_SERVERS + 1]).unwrap_err();
    }
}
