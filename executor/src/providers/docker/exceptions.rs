//! What the operator lets boxes with a network reach though it is not public.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::rules::{METADATA, POOL};

/// A network or an address, with all its ports or some: `10.0.0.0/24`, `10.0.0.5:443`, `10.0.0.5:8000-8010`, `fd00::/64`,
/// `[fd00::5]:443`.
///
/// Link-local addresses and metadata services of clouds are open only where an exception names that one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkException {
    network: IpNet,
    ports: Option<(u16, u16)>,
}

/// Why a text is no exception.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkExceptionError {
    /// It is neither an address nor a network, or its ports are none.
    #[error(
        "{0:?} is no network that could be opened: write 10.0.0.0/24, 10.0.0.5:443, 10.0.0.5:8000-8010, fd00::/64 or [fd00::5]:443"
    )]
    Unreadable(String),
    /// There are bits behind the length of the network.
    #[error("{text:?} is an address with the length of a network: write {network} or the address alone")]
    Longer {
        /// What was written.
        text: String,
        /// The network that it is in.
        network: IpNet,
    },
    /// It is all there is.
    #[error("{0:?} would open everything: name the networks that are meant")]
    Everything(String),
    /// What is there can never be reached.
    #[error("{0:?} cannot be opened: nothing there can be reached from a sandbox")]
    Nowhere(String),
    /// It is where sandboxes have their own networks.
    #[error("{0:?} is where sandboxes have their networks: none reaches another")]
    Sandboxes(String),
    /// It is more than one link-local address or metadata service.
    #[error(
        "{0:?} has link-local addresses or metadata services: those are opened one by one, each by its address"
    )]
    OneByOne(String),
}

impl NetworkException {
    /// Whether it is about IPv6.
    pub fn is_v6(&self) -> bool {
        matches!(self.network, IpNet::V6(_))
    }

    /// Whether it names one address.
    pub(super) fn is_exact(&self) -> bool {
        self.network.prefix_len() == self.network.max_prefix_len()
    }

    /// What is open, on some of its ports or all.
    pub(super) fn network(&self) -> IpNet {
        self.network
    }

    /// The rule that lets questions for names go there, past our own server: only where a port of name servers is named.
    pub(super) fn names_rule(&self, ports: [u16; 2]) -> Option<String> {
        let (first, last) = self.ports?;
        let named: Vec<_> = ports.into_iter().filter(|port| (first..=last).contains(port)).collect();
        let family = if self.is_v6() { "ip6" } else { "ip" };
        let named = named.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        (!named.is_empty()).then(|| {
            format!(
                "{family} daddr {} meta l4proto {{ tcp, udp }} th dport {{ {named} }} return",
                self.network
            )
        })
    }

    /// The rule that lets it through.
    pub(super) fn rule(&self) -> String {
        let family = if self.is_v6() { "ip6" } else { "ip" };
        let to = if self.is_exact() { self.network.addr().to_string() } else { self.network.to_string() };
        match self.ports {
            None => format!("{family} daddr {to} accept"),
            Some((first, last)) if first == last => {
                format!("{family} daddr {to} meta l4proto {{ tcp, udp }} th dport {first} accept")
            }
            Some((first, last)) => {
                format!("{family} daddr {to} meta l4proto {{ tcp, udp }} th dport {first}-{last} accept")
            }
        }
    }
}

impl FromStr for NetworkException {
    type Err = NetworkExceptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let said = || text.to_owned();
        let unreadable = || NetworkExceptionError::Unreadable(said());
        let trimmed = text.trim();
        let (network, ports) = if let Some(rest) = trimmed.strip_prefix('[') {
            let (network, rest) = rest.split_once(']').ok_or_else(unreadable)?;
            let network = parse_network(network).filter(|network| matches!(network, IpNet::V6(_)));
            (
                network,
                rest.strip_prefix(':')
                    .map(Some)
                    .or(rest.is_empty().then_some(None))
                    .ok_or_else(unreadable)?,
            )
        } else if let Some(network) = parse_network(trimmed) {
            (Some(network), None)
        } else {
            let (network, ports) = trimmed.rsplit_once(':').ok_or_else(unreadable)?;
            (parse_network(network).filter(|network| matches!(network, IpNet::V4(_))), Some(ports))
        };
        let network = network.ok_or_else(unreadable)?;
        let ports = ports.map(|ports| parse_ports(ports).ok_or_else(unreadable)).transpose()?;
        if network.trunc() != network {
            return Err(NetworkExceptionError::Longer { text: said(), network: network.trunc() });
        }
        if network.prefix_len() == 0 {
            return Err(NetworkExceptionError::Everything(said()));
        }
        if nowhere().iter().any(|closed| closed.contains(&network)) {
            return Err(NetworkExceptionError::Nowhere(said()));
        }
        if IpNet::V4(POOL).contains(&network) {
            return Err(NetworkExceptionError::Sandboxes(said()));
        }
        let exception = Self { network, ports };
        let within_metadata = METADATA.iter().any(|closed| closed.contains(&network));
        if within_metadata && !exception.is_exact() {
            return Err(NetworkExceptionError::OneByOne(said()));
        }
        Ok(exception)
    }
}

impl fmt::Display for NetworkException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network =
            if self.is_exact() { self.network.addr().to_string() } else { self.network.to_string() };
        let network = if self.is_v6() && self.ports.is_some() { format!("[{network}]") } else { network };
        match self.ports {
            None => f.write_str(&network),
            Some((first, last)) if first == last => write!(f, "{network}:{first}"),
            Some((first, last)) => write!(f, "{network}:{first}-{last}"),
        }
    }
}

fn parse_network(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn parse_ports(text: &str) -> Option<(u16, u16)> {
    // Neither signs nor blanks.
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && port.to_string() == text);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some((first, last))
}

/// This network, loopback, multicast and what is reserved; of IPv6 also what stands for an address of IPv4.
fn nowhere() -> [IpNet; 8] {
    let v4 = |a: u8, length: u8| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, 0, 0, 0), length));
    let v6 = |address: Ipv6Addr, length: u8| IpNet::V6(Ipv6Net::new_assert(address, length));
    let head = |first: u16, second: u16| Ipv6Addr::new(first, second, 0, 0, 0, 0, 0, 0);
    [
        v4(0, 8),
        v4(127, 8),
        v4(224, 3),
        v6(Ipv6Addr::UNSPECIFIED, 96),
        v6(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
        v6(head(0x64, 0xff9b), 96),
        v6(head(0x2002, 0), 16),
        v6(head(0xff00, 0), 8),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_opened_and_no_more() {
        for (text, rule) in [
            ("10.0.0.0/24", "ip daddr 10.0.0.0/24 accept"),
            (" 10.0.0.5 ", "ip daddr 10.0.0.5 accept"),
            ("10.0.0.5/32:443", "ip daddr 10.0.0.5 meta l4proto { tcp, udp } th dport 443 accept"),
            ("10.0.0.0/8:1-65535", "ip daddr 10.0.0.0/8 meta l4proto { tcp, udp } th dport 1-65535 accept"),
            ("169.254.169.254:80", "ip daddr 169.254.169.254 meta l4proto { tcp, udp } th dport 80 accept"),
            ("fd00:1::/64", "ip6 daddr fd00:1::/64 accept"),
            ("[fd00::5]:443", "ip6 daddr fd00::5 meta l4proto { tcp, udp } th dport 443 accept"),
            ("[fd00::/64]", "ip6 daddr fd00::/64 accept"),
            ("fd00:ec2::254", "ip6 daddr fd00:ec2::254 accept"),
        ] {
            let exception: NetworkException = text.parse().unwrap();
            assert_eq!(exception.rule(), rule, "{text}");
            assert_eq!(exception.to_string().parse(), Ok(exception), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_reason() {
        for (texts, reason) in [
            (
                &[
                    "",
                    "mirror",
                    "10.0.0",
                    "10.0.0.5:",
                    "10.0.0.5:0",
                    "10.0.0.5:+1",
                    "10.0.0.5:9-8",
                    "10.0.0.5:70000",
                ][..],
                "is no network that could be opened",
            ),
            (
                &["[10.0.0.5]:443", "[fd00::5", "[fd00::5]443", "10.0.0.5:443/tcp", "10.0.0.0/33"][..],
                "is no network",
            ),
            (&["10.0.0.5/24", "10.0.0.5/8:443", "fd00::5/64"][..], "with the length of a network"),
            (&["0.0.0.0/0", "::/0", "0.0.0.0/0:443"][..], "would open everything"),
            (
                &[
                    "127.0.0.1",
                    "0.0.0.0",
                    "224.0.0.1",
                    "255.255.255.255",
                    "::1",
                    "::",
                    "ff02::1",
                    "::ffff:10.0.0.5",
                ][..],
                "nothing there can be reached",
            ),
            (&["10.213.0.0/16", "10.213.4.2:22"][..], "is where sandboxes have their networks"),
            (&["169.254.0.0/16", "169.254.169.0/24:80", "fe80::/10", "fe80::/64"][..], "one by one"),
        ] {
            for text in texts {
                let error = text.parse::<NetworkException>().unwrap_err().to_string();
                assert!(error.contains(reason) && error.contains(&format!("{text:?}")), "{text}: {error}");
            }
        }
    }
}
