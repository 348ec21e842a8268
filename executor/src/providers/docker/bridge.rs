//! The network of a box that asks for one: a bridge of its own, and rules of ours about what it leads to.
//!
//! The rules are one nftables table for each installation. It matches interfaces by the beginning of their names, so it is the same
//! whatever boxes there are: it is put in place whole, in one transaction, before any network is made.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::ListNetworksOptionsBuilder;
use events::SandboxId;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;
use uuid::Uuid;

use super::DockerProvider;
use super::body::{network_name, own_labels};
use super::errors::{Meaning, create_error, meaning};
use crate::provider::{CreateError, Source};

/// Where networks are made, a /30 each: the first two bytes.
const POOL: [u8; 2] = [10, 213];
/// How many places in the pool are tried. With half of them taken, all of these are taken once in 4 billion times.
const TRIES: u32 = 32;
/// How long `nft` may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where `nft` is looked for: services often have no `sbin` in their path.
const PATH: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// What is never reached: this network, private and shared ranges, loopback, link-local with the metadata services of clouds, relays,
/// benchmarks, multicast, what is reserved.
const CLOSED: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, \
    192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3";
/// Where the host says who resolves names for it; the second has those that a local stub asks.
const RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

impl DockerProvider {
    /// Rules first, then the network: there is no moment in which it is open.
    pub(super) async fn make_network(&self, engine: &Docker, id: SandboxId) -> Result<(), CreateError> {
        let _turn = self.bridges.lock().await;
        let prefix = self.interface_prefix();
        put_in_place(&rules(&prefix, &resolvers())).await.map_err(refused)?;
        let interface = format!("{prefix}{}", short(&id.to_string(), 7));
        for attempt in 0..TRIES {
            match engine.create_network(self.network_request(id, &interface, attempt)).await {
                Ok(_) => break,
                Err(error) if meaning(&error) == Meaning::Conflict => break,
                Err(error) if attempt + 1 < TRIES && is_taken(&error) => {}
                Err(error) => return Err(create_error(error, None, "")),
            }
        }
        // Rules hold where they were made. An engine of another machine, or of another network namespace, has none.
        if Path::new("/sys/class/net").join(&interface).exists() {
            return Ok(());
        }
        self.take_away(engine, id).await;
        Err(refused("the engine makes its networks where this node cannot see them".into()))
    }

    /// Removes the network of a box, and the rules with the last one of them. Best effort: what stays leads nowhere that it did not
    /// lead before.
    pub(super) async fn remove_network(&self, engine: &Docker, id: SandboxId) {
        // Nobody makes a network between the look at what is left and the end of the rules.
        let _turn = self.bridges.lock().await;
        self.take_away(engine, id).await;
    }

    async fn take_away(&self, engine: &Docker, id: SandboxId) {
        match engine.remove_network(&network_name(&self.config, id)).await {
            Ok(()) => {}
            Err(Error::DockerResponseServerError { status_code: 404, .. }) => return,
            Err(error) => {
                tracing::warn!(sandbox.id = %id, error = %error, "its network is still there");
                return;
            }
        }
        let labels = own_labels(&self.config).map(|(name, value)| format!("{name}={value}"));
        let filters = HashMap::from([("label".to_owned(), labels.to_vec())]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        if engine.list_networks(Some(options)).await.is_ok_and(|left| left.is_empty()) {
            let text = format!("delete table inet {}\n", table(&self.interface_prefix()));
            if let Err(error) = put_in_place(&text).await {
                tracing::warn!(
                    error = &*error as &dyn std::error::Error,
                    "rules of networks are still there"
                );
            }
        }
    }

    /// How the names of this installation's bridges begin.
    fn interface_prefix(&self) -> String {
        format!("sv{}", short(&format!("{}/{}", self.config.deployment, self.config.node), 6))
    }

    fn network_request(&self, id: SandboxId, interface: &str, attempt: u32) -> NetworkCreateRequest {
        let place = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{id}/{attempt}").as_bytes());
        let subnet = Ipv4Addr::new(POOL[0], POOL[1], place.as_bytes()[0], place.as_bytes()[1] & !3);
        let option =
            |name: &str, value: &str| (format!("com.docker.network.bridge.{name}"), value.to_owned());
        NetworkCreateRequest {
            name: network_name(&self.config, id),
            driver: Some("bridge".to_owned()),
            enable_ipv6: Some(false),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some(format!("{subnet}/30")),
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

fn refused(reason: Source) -> CreateError {
    CreateError::Unsupported { what: format!("network \"bridge\": its rules cannot be kept here: {reason}") }
}

fn is_taken(error: &Error) -> bool {
    matches!(error, Error::DockerResponseServerError { message, .. } if message.contains("overlap"))
}

/// The same short word for the same text, in hexadecimal digits.
fn short(text: &str, digits: usize) -> String {
    let mut word = Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string();
    word.truncate(digits);
    word
}

/// The name servers of the host that are not on its loopback: the engine asks those from within the box's network.
fn resolvers() -> Vec<Ipv4Addr> {
    let mut found = Vec::new();
    for path in RESOLVERS {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
        for address in named.filter_map(|rest| rest.trim().parse::<IpAddr>().ok()) {
            if let IpAddr::V4(address) = address
                && !address.is_loopback()
                && !found.contains(&address)
            {
                found.push(address);
            }
        }
    }
    found
}

fn table(prefix: &str) -> String {
    format!("stacyvm_{prefix}")
}

/// The table, whole: whatever it was before. Packets are looked at before addresses are translated (what was asked for) and after
/// (where it would go). A drop is final, whatever other tables accept.
fn rules(prefix: &str, resolvers: &[Ipv4Addr]) -> String {
    let table = format!("table inet {}", table(prefix));
    let names: String = resolvers
        .iter()
        .map(|address| {
            format!("    ip daddr {address} meta l4proto {{ tcp, udp }} th dport 53 fib daddr type != local accept\n")
        })
        .collect();
    let pool = format!("{}.{}.0.0/16", POOL[0], POOL[1]);
    format!(
        "add {table}\ndelete {table}\n{table} {{
  chain asked {{
    type filter hook prerouting priority -310; policy accept;
    iifname \"{prefix}*\" jump box
  }}
  chain host {{
    type filter hook input priority -10; policy accept;
    iifname \"{prefix}*\" drop
  }}
  chain through {{
    type filter hook forward priority -10; policy accept;
    iifname \"{prefix}*\" jump box
    oifname \"{prefix}*\" ct state != {{ established, related }} drop
  }}
  chain box {{
    meta nfproto != ipv4 drop
    ip saddr != {pool} drop
{names}    fib daddr type {{ local, broadcast, anycast, multicast }} drop
    ip daddr {{ {CLOSED} }} drop
  }}
}}
"
    )
}

async fn put_in_place(rules: &str) -> Result<(), Source> {
    let run = async {
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("nft cannot be run: {error}"))?;
        if let Some(mut stdin) = nft.stdin.take() {
            // If it does not read, its exit says why.
            let _ = stdin.write_all(rules.as_bytes()).await;
        }
        let output = nft.wait_with_output().await?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let line: String = said.lines().next().unwrap_or_default().chars().take(200).collect();
        Err(Source::from(format!("nft refuses them: {line}")))
    };
    timeout(PATIENCE, run).await.unwrap_or_else(|_| Err("nft does not answer".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_port_53_of_the_hosts_resolvers_is_open_among_what_is_closed() {
        let text = rules("sv123456", &[Ipv4Addr::new(10, 0, 0, 2)]);
        let accepts: Vec<_> = text.lines().filter(|line| line.ends_with(" accept")).collect();
        assert_eq!(
            accepts,
            ["    ip daddr 10.0.0.2 meta l4proto { tcp, udp } th dport 53 fib daddr type != local accept"]
        );
        assert!(text.find("accept\n    fib").is_some(), "{text}");
    }

    #[tokio::test]
    async fn rules_that_nft_does_not_take_are_an_error_with_its_words() {
        let error = put_in_place("nonsense\n").await.unwrap_err();
        assert!(error.to_string().contains("nonsense") || error.to_string().contains("syntax"), "{error}");
    }
}
