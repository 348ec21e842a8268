//! The network of a box that asks for one: a bridge of its own, and rules of ours about what it leads to.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Ipam, IpamConfig, Network, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use events::SandboxId;
use ipnet::Ipv4Net;
use tokio::time::timeout;
use uuid::Uuid;

use super::body::{network_name, own_labels};
use super::errors::{Meaning, create_error, meaning};
use super::rules::{self, POOL, Rules};
use super::{DockerProvider, nft, same_namespace};
use crate::provider::{CreateError, Source};
use crate::resolver::{Resolver, host_end};

/// How many places in the pool are tried. With half of them taken, all of these are taken once in 4 billion times.
const TRIES: u32 = 32;
/// How long a network may be there without a box: one that is being made has its network first.
const UNUSED: Duration = Duration::from_secs(60);
/// How long the engine may take to say what networks there are.
const LIST: Duration = Duration::from_secs(20);

/// What is known of the networks of boxes.
#[derive(Default)]
pub(super) struct Bridges {
    /// Held while networks and the rules for them are made, looked at or removed.
    kept: tokio::sync::Mutex<Kept>,
    /// Why the rules for networks that are there cannot be kept.
    trouble: Mutex<Option<String>>,
    /// Why boxes that are there hear of no names.
    deaf: Mutex<Option<String>>,
    /// Why no networks can be had.
    refusal: Mutex<Option<String>>,
}

#[derive(Default)]
struct Kept {
    /// The rules that were put in place last, and how they look there.
    put: Option<(String, String)>,
    /// Networks without a box, by the engine's ids, and since when.
    unused: HashMap<String, Instant>,
    /// Whether what former processes left has been looked at.
    looked: bool,
    /// Whether there may be networks. Nobody but this process makes any.
    in_use: bool,
}

impl Bridges {
    /// Why boxes that are there may reach what they must not.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why boxes that are there hear of no names.
    pub(super) fn deaf(&self) -> Option<String> {
        self.deaf.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why a box that asks for a network is refused.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_refusal(&self, reason: Option<&Source>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = reason.map(ToString::to_string);
    }

    /// Says so once.
    fn set_trouble(&self, reason: Option<&Source>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match (reason, &*trouble) {
            (Some(reason), None) => {
                tracing::error!(error = %reason, "the rules of networks cannot be kept: sandboxes may reach what they must not");
            }
            (None, Some(_)) => tracing::info!("the rules of networks are kept again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        *trouble = reason.map(ToString::to_string);
    }

    /// Says so once.
    fn set_deaf(&self, reason: Option<String>) {
        let mut deaf = self.deaf.lock().unwrap_or_else(PoisonError::into_inner);
        match (&reason, &*deaf) {
            (Some(reason), None) => {
                tracing::error!(error = %reason, "sandboxes with a network hear of no names");
            }
            (None, Some(_)) => tracing::info!("sandboxes with a network hear of names again"),
            (Some(_), Some(_)) | (None, None) => {}
        }
        *deaf = reason;
    }
}

impl DockerProvider {
    /// Rules first, then the network: there is no moment in which it is open.
    pub(super) async fn make_network(&self, engine: &Docker, id: SandboxId) -> Result<(), CreateError> {
        let mut kept = self.bridges.kept.lock().await;
        let unsupported = |why: &str, reason: &Source| {
            self.bridges.set_refusal(Some(reason));
            CreateError::Unsupported { what: format!("network \"bridge\": {why} here: {reason}") }
        };
        let held = self.hold_rules(&mut kept, false).await;
        held.map_err(|reason| unsupported("its rules cannot be kept", &reason))?;
        kept.in_use = true;
        let interface = format!("{}{}", self.interface_prefix(), short(&id.to_string(), 7));
        for attempt in 0..TRIES {
            match engine.create_network(self.network_request(id, &interface, attempt)).await {
                Ok(_) => break,
                Err(error) if meaning(&error) == Meaning::Conflict => break,
                Err(error) if attempt + 1 < TRIES && is_taken(&error) => {}
                Err(error) => return Err(create_error(error, None, "")),
            }
        }
        // Rules hold where they were made. An engine of another machine, or of another network namespace, has none.
        let usable = if Path::new("/sys/class/net").join(&interface).exists() {
            self.answer_names(engine, id)
                .await
                .map_err(|reason| unsupported("no names can be answered", &reason))
        } else {
            Err(unsupported("its rules cannot be kept", &ELSEWHERE.into()))
        };
        if usable.is_err() {
            self.take_away(engine, id, &mut kept).await;
        } else {
            self.bridges.set_refusal(None);
        }
        usable
    }

    /// Listens for the questions of a box whose network is there.
    async fn answer_names(&self, engine: &Docker, id: SandboxId) -> Result<(), Source> {
        let network = engine.inspect_network(&network_name(&self.config, id), None).await?;
        let subnet = subnet(network.ipam.as_ref()).ok_or("the engine does not say where its network is")?;
        self.resolver.listen(id, subnet).await.map_err(|error| cannot_listen(subnet, &error).into())
    }

    /// Removes the network of a box, and the rules with the last one of them. Best effort: what stays leads nowhere that it did not
    /// lead before, and is looked at again.
    pub(super) async fn remove_network(&self, engine: &Docker, id: SandboxId) {
        // Nobody makes a network between the look at what is left and the end of the rules.
        let mut kept = self.bridges.kept.lock().await;
        self.take_away(engine, id, &mut kept).await;
    }

    async fn take_away(&self, engine: &Docker, id: SandboxId, kept: &mut Kept) {
        self.resolver.leave(id);
        match engine.remove_network(&network_name(&self.config, id)).await {
            Ok(()) => {}
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return,
            Err(error) => {
                tracing::warn!(sandbox.id = %id, error = %error, "its network is still there");
                return;
            }
        }
        if self.own_networks(engine).await.is_ok_and(|left| left.is_empty()) {
            kept.in_use = false;
            self.bridges.set_trouble(None);
            self.bridges.set_deaf(None);
            self.drop_rules(kept).await;
        }
    }

    /// Removes networks whose boxes are gone, and sees that the rules for the others are in place. Called at the start, before boxes are
    /// made, and every few seconds.
    pub(super) async fn look_after_networks(&self) {
        let mut kept = self.bridges.kept.lock().await;
        if kept.looked && !kept.in_use {
            return;
        }
        let found = async {
            let engine = self.engine().await?;
            let networks = timeout(LIST, self.own_networks(engine)).await;
            networks.unwrap_or(Err(Error::RequestTimeoutError)).map(|networks| (engine, networks))
        };
        let Ok((engine, networks)) = found.await else {
            // That the engine does not answer is told elsewhere. Its boxes may run all the same.
            if kept.put.is_some() {
                let held = self.hold_rules(&mut kept, true).await;
                self.bridges.set_trouble(held.as_ref().err());
            }
            return;
        };
        let first = !std::mem::replace(&mut kept.looked, true);
        // Nothing that this process makes can be among them.
        let all_are_old = first && kept.put.is_none();
        let mut unused = HashMap::new();
        let mut left = 0_usize;
        let (mut deaf, mut there) = (None, HashSet::new());
        for Found { network, name, subnet } in networks {
            let id = id_in(&name);
            there.extend(id);
            if let Some(id) = id.filter(|id| self.run_dir(*id).exists()) {
                left += 1;
                let listens = match subnet {
                    Some(subnet) => {
                        self.resolver.listen(id, subnet).await.map_err(|error| cannot_listen(subnet, &error))
                    }
                    None => Err("the engine does not say where their networks are".to_owned()),
                };
                deaf = deaf.or(listens.err());
                continue;
            }
            let since = kept.unused.get(&network).copied().unwrap_or_else(Instant::now);
            if all_are_old || since.elapsed() >= UNUSED {
                match engine.remove_network(&network).await {
                    Ok(()) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => {
                        tracing::info!(network = %name, "removed a network whose sandbox is gone");
                        continue;
                    }
                    Err(error) => tracing::debug!(network = %name, error = %error, "an unused network stays"),
                }
            }
            unused.insert(network, since);
            left += 1;
        }
        self.resolver.keep(|id| there.contains(&id));
        self.bridges.set_deaf(deaf);
        kept.unused = unused;
        kept.in_use = left > 0;
        if left > 0 {
            let held = self.hold_rules(&mut kept, true).await;
            self.bridges.set_trouble(held.as_ref().err());
        } else {
            self.bridges.set_trouble(None);
            if first || kept.put.is_some() {
                self.drop_rules(&mut kept).await;
            }
            if first {
                self.bridges.set_refusal(self.try_out_rules().await.as_ref().err());
            }
        }
    }

    /// Puts the rules in place if they are not there as they should be. `needed`: there are networks that they are for.
    async fn hold_rules(&self, kept: &mut Kept, needed: bool) -> Result<(), Source> {
        let prefix = self.interface_prefix();
        let text = self.rules(&prefix).text();
        let shown = nft::show(&rules::table(&prefix)).await?;
        let as_put = match (&kept.put, &shown) {
            (Some((put, looks)), Some(shown)) if shown == looks => {
                if *put == text {
                    return Ok(());
                }
                // What they follow from is another: the host's name servers.
                true
            }
            (Some(_), _) | (None, None) => false,
            // Of a former process, which may have been told to let other things through.
            (None, Some(_)) => true,
        };
        kept.put = None;
        let looks = nft::put_and_show(&text, &rules::table(&prefix)).await?;
        kept.put = Some((text, looks));
        if needed && !as_put {
            tracing::warn!(
                table = rules::table(&prefix),
                "somebody removed or changed the rules of networks: they are back in place"
            );
        }
        Ok(())
    }

    async fn drop_rules(&self, kept: &mut Kept) {
        kept.put = None;
        let prefix = self.interface_prefix();
        if let Err(error) = nft::put(&rules::without(&prefix)).await {
            tracing::debug!(error = %error, "rules of networks may still be there");
        }
    }

    /// Whether networks could be had.
    async fn try_out_rules(&self) -> Result<(), Source> {
        if same_namespace(&self.config.socket, "net").await == Some(false) {
            return Err(ELSEWHERE.into());
        }
        nft::try_out(&self.rules(&self.interface_prefix()).text()).await?;
        Resolver::try_out(&self.interface_prefix())
            .await
            .map_err(|error| format!("names cannot be answered: {error}").into())
    }

    fn rules<'a>(&'a self, prefix: &'a str) -> Rules<'a> {
        Rules { prefix, exceptions: &self.config.allow_networks }
    }

    /// The networks of this node's boxes.
    async fn own_networks(&self, engine: &Docker) -> Result<Vec<Found>, Error> {
        let labels = own_labels(&self.config).map(|(name, value)| format!("{name}={value}"));
        let filters = HashMap::from([("label".to_owned(), labels.to_vec())]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let networks = engine.list_networks(Some(options)).await?.into_iter();
        let found = |network: Network| {
            let subnet = subnet(network.ipam.as_ref());
            Some(Found { network: network.id?, name: network.name?, subnet })
        };
        Ok(networks.filter_map(found).collect())
    }

    /// How the names of this installation's bridges begin.
    fn interface_prefix(&self) -> String {
        format!("sv{}", short(&format!("{}/{}", self.config.deployment, self.config.node), 6))
    }

    fn network_request(&self, id: SandboxId, interface: &str, attempt: u32) -> NetworkCreateRequest {
        let place = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{id}/{attempt}").as_bytes());
        let [first, second, ..] = POOL.network().octets();
        let subnet = Ipv4Addr::new(first, second, place.as_bytes()[0], place.as_bytes()[1] & !3);
        let option =
            |name: &str, value: &str| (format!("com.docker.network.bridge.{name}"), value.to_owned());
        NetworkCreateRequest {
            name: network_name(&self.config, id),
            driver: Some("bridge".to_owned()),
            enable_ipv6: Some(false),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(format!("{subnet}/30")),
                    gateway: Some((host_end(Ipv4Net::new_assert(subnet, 30))).to_string()),
                    ..IpamConfig::default()
                }]),
                ..Ipam::default()
            }),
            options: Some([option("enable_icc", "false"), option("name", interface)].into()),
            labels: Some(
                own_labels(&self.config).map(|(name, value)| (name.to_owned(), value)).into_iter().collect(),
            ),
            ..NetworkCreateRequest::default()
        }
    }
}

/// A network of a box.
struct Found {
    /// The engine's id.
    network: String,
    name: String,
    subnet: Option<Ipv4Net>,
}

/// Whose network of that name it is.
fn id_in(network: &str) -> Option<SandboxId> {
    network.rfind("sb-").and_then(|at| network.get(at..)?.parse().ok())
}

fn subnet(ipam: Option<&Ipam>) -> Option<Ipv4Net> {
    ipam?.config.as_ref()?.first()?.subnet.as_ref()?.parse().ok()
}

fn cannot_listen(subnet: Ipv4Net, error: &std::io::Error) -> String {
    format!("nobody can listen on port 53 of {}: {error}", host_end(subnet))
}

const ELSEWHERE: &str = "the engine makes its networks where this node cannot see them";

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { message, .. } if message.contains("overlap"))
}

/// The same short word for the same text, in hexadecimal digits.
fn short(text: &str, digits: usize) -> String {
    let mut word = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string();
    word.truncate(digits);
    word
}
