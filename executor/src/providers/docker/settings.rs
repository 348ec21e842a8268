//! The section `providers.docker` of the configuration.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use events::{ErrorChain, PoolName};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{DockerConfig, DockerProvider, Name, NetworkException, PullPolicy};
use crate::provider::Provider;
use crate::providers::registry::{self, SetupError, Site};

/// Every packet of a sandbox may be held to all of them.
const MOST_EXCEPTIONS: usize = 256;
/// As many as name servers in a `resolv.conf`.
const MOST_SERVERS: usize = 3;

/// How the engine is reached and what sandboxes of it may do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// None: on where the engine's socket is.
    pub enabled: Option<bool>,
    /// The pool that it serves; none: the one that is called as the provider.
    pub pool: Option<PoolName>,
    /// The engine's unix socket.
    pub socket: String,
    /// The runtimes that a sandbox may name, first the one of those that name none; empty: the engine's own.
    pub runtimes: Vec<String>,
    /// `default`, or a path of a profile.
    pub seccomp_profile: String,
    /// How the names of the networks of sandboxes that ask for one begin.
    pub bridge_network: String,
    /// What those may reach though it is not public: `10.0.0.5:443`, `10.0.0.0/24`, `[fd00::5]:443`.
    pub allow_networks: Vec<String>,
    /// The name servers that are asked on their behalf; empty: those of the node.
    pub dns_servers: Vec<String>,
    /// Names of the inside that are asked for all the same, with all below them: `mirror.internal`.
    pub allow_names: Vec<String>,
    /// `missing` or `never`.
    pub pull: String,
    /// `NAME=IMAGE`: the engine is asked for IMAGE where a request names NAME.
    pub image_aliases: Vec<ImageAlias>,
    /// A control group for each tenant, where the engine makes control groups itself.
    pub group_by_tenant: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: None,
            pool: None,
            socket: "/var/run/docker.sock".to_owned(),
            runtimes: Vec::new(),
            seccomp_profile: "default".to_owned(),
            bridge_network: "stacyvm".to_owned(),
            allow_networks: Vec::new(),
            dns_servers: Vec::new(),
            allow_names: Vec::new(),
            pull: "missing".to_owned(),
            image_aliases: Vec::new(),
            group_by_tenant: true,
        }
    }
}

impl Settings {
    fn socket(&self) -> &str {
        self.socket.strip_prefix("unix://").unwrap_or(&self.socket)
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
        Path::new(self.socket()).exists()
    }

    fn make(&self, site: Site) -> Result<Arc<dyn Provider>, SetupError> {
        let failed = |error: super::DockerSetupError| SetupError::Failed(error.into());
        let base = DockerConfig::new(site.data_dir, site.agent_path, site.node)
            .map_err(|error| SetupError::Failed(error.into()))?;
        let provider = DockerProvider::new(DockerConfig {
            socket: self.socket().into(),
            deployment: site.deployment,
            bridge_network: self.bridge_network.clone(),
            allow_networks: allow_networks(&self.allow_networks)?,
            dns_servers: dns_servers(&self.dns_servers)?,
            allow_names: allow_names(&self.allow_names)?,
            pull: pull(&self.pull)?,
            image_aliases: self
                .image_aliases
                .iter()
                .map(|alias| (alias.name.clone(), alias.image.clone()))
                .collect(),
            images: site.images,
            runtimes: self.runtimes.clone(),
            group_by_tenant: self.group_by_tenant,
            seccomp_profile: (self.seccomp_profile != "default").then(|| self.seccomp_profile.clone().into()),
            ..base
        });
        Ok(Arc::new(provider.map_err(failed)?))
    }

    fn check(&self) -> Result<(), SetupError> {
        pull(&self.pull).map(|_| ())
    }
}

fn pull(word: &str) -> Result<PullPolicy, SetupError> {
    match word {
        "missing" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        other => Err(SetupError::of("pull", format!("{other:?} is neither missing nor never"))),
    }
}

/// What sandboxes with a network may reach though it is not public.
fn allow_networks(entries: &[String]) -> Result<Vec<NetworkException>, SetupError> {
    const KEY: &str = "allow_networks";
    if entries.len() > MOST_EXCEPTIONS {
        let reason = format!("it has more than {MOST_EXCEPTIONS} entries: name larger networks");
        return Err(SetupError::of(KEY, reason));
    }
    entries
        .iter()
        .map(|entry| entry.parse().map_err(|error| SetupError::of(KEY, ErrorChain(&error))))
        .collect()
}

/// Names of the inside that those may ask for.
fn allow_names(entries: &[String]) -> Result<Vec<Name>, SetupError> {
    const KEY: &str = "allow_names";
    if entries.len() > MOST_EXCEPTIONS {
        let reason = format!("it has more than {MOST_EXCEPTIONS} entries: name what is above them");
        return Err(SetupError::of(KEY, reason));
    }
    entries
        .iter()
        .map(|entry| entry.parse().map_err(|error| SetupError::of(KEY, ErrorChain(&error))))
        .collect()
}

/// Whom the node asks on behalf of sandboxes with a network.
fn dns_servers(entries: &[String]) -> Result<Vec<Ipv4Addr>, SetupError> {
    const KEY: &str = "dns_servers";
    let parse = |entry: &String| {
        let address: Ipv4Addr =
            entry.trim().parse().map_err(|_| SetupError::of(KEY, format!("{entry:?} is no IPv4 address")))?;
        if address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
            return Err(SetupError::of(KEY, format!("{entry:?} is nobody's address")));
        }
        Ok(address)
    };
    if entries.len() > MOST_SERVERS {
        let reason = format!("it has more than {MOST_SERVERS} entries: resolvers ask no more");
        return Err(SetupError::of(KEY, reason));
    }
    entries.iter().map(parse).collect()
}

/// An image name and the image that is used in its place: `alpine:latest=registry.internal/alpine:3.20`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageAlias {
    /// The name, with its tag.
    pub name: String,
    /// What the engine is asked for.
    pub image: String,
}

impl Serialize for ImageAlias {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}={}", self.name, self.image))
    }
}

impl<'de> Deserialize<'de> for ImageAlias {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_alias(&text).ok_or_else(|| {
            de::Error::custom(format!("invalid image alias {text:?}: use the form NAME:TAG=IMAGE"))
        })
    }
}

fn parse_alias(text: &str) -> Option<ImageAlias> {
    let (name, image) = text.split_once('=')?;
    let is_name = |name: &str| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '=');
    // A request without a tag means `:latest`, so an alias without one would never be found.
    let last = name.rsplit('/').next()?;
    (is_name(name) && is_name(image) && last.contains([':', '@']))
        .then(|| ImageAlias { name: name.to_owned(), image: image.to_owned() })
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
            let error = format!("{}", allow_networks(&texts(&[wrong])).unwrap_err());
            assert!(error.starts_with("allow_networks: ") && error.contains(wrong), "{error}");
        }
        allow_networks(&vec!["10.0.0.5".to_owned(); MOST_EXCEPTIONS + 1]).unwrap_err();
    }

    #[test]
    fn name_servers_are_addresses_and_names_are_names() {
        let servers = [Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 53)];
        assert_eq!(dns_servers(&texts(&["10.0.0.2", "127.0.0.53"])).unwrap(), servers);
        assert_eq!(allow_names(&texts(&["mirror.internal", "Db.corp."])).unwrap().len(), 2);
        for wrong in ["*.corp", "10.0.0.2", ".", "a b"] {
            let error = format!("{}", allow_names(&texts(&[wrong])).unwrap_err());
            assert!(error.starts_with("allow_names: ") && error.contains(wrong), "{error}");
        }
        allow_names(&vec!["x.corp".to_owned(); MOST_EXCEPTIONS + 1]).unwrap_err();
        for wrong in ["0.0.0.0", "255.255.255.255", "ns.example", "fd00::53", "10.0.0.2:53"] {
            let error = format!("{}", dns_servers(&texts(&[wrong])).unwrap_err());
            assert!(error.starts_with("dns_servers: ") && error.contains(wrong), "{error}");
        }
        dns_servers(&vec!["10.0.0.2".to_owned(); MOST_SERVERS + 1]).unwrap_err();
    }

    #[test]
    fn aliases_name_two_images() {
        let alias =
            |name: &str, image: &str| Some(ImageAlias { name: name.to_owned(), image: image.to_owned() });
        assert_eq!(
            parse_alias("alpine:latest=stacyvm/base:local"),
            alias("alpine:latest", "stacyvm/base:local")
        );
        assert_eq!(parse_alias("r:5000/a/b:1=m:5000/b"), alias("r:5000/a/b:1", "m:5000/b"));
        for text in ["", "alpine", "alpine=x", "r:5000/alpine=x", "a:1=", "=a:1", "a:1=b=c", "a :1=b"] {
            assert_eq!(parse_alias(text), None, "{text}");
        }
    }
}
