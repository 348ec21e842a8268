//! Which addresses may be connected to on behalf of somebody who must not reach our own networks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Says of an address whether it may be connected to: those of the public internet, and what the operator allows besides.
///
/// The check belongs where the connection is made, on the very address that is connected to: a name can resolve to another
/// address a moment later.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a network: write 10.0.0.0/8 or fd00::/8")]
pub struct NotANetwork(String);

impl AddressPolicy {
    /// The public internet and these networks.
    pub fn new<S: AsRef<str>>(networks: &[S]) -> Result<Self, NotANetwork> {
        let parse = |text: &S| {
            let text = text.as_ref().trim();
            let address = || IpAddr::from_str(text).map(IpNet::from);
            IpNet::from_str(text).or_else(|_| address()).map_err(|_| NotANetwork(text.to_owned()))
        };
        Ok(Self { allowed: networks.iter().map(parse).collect::<Result<_, _>>()? })
    }

    /// The address that is judged: what is written as IPv6 and reaches an IPv4 address is that one.
    pub fn meant(address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
        }
    }

    /// Whether this address may be connected to.
    pub fn permits(&self, address: IpAddr) -> bool {
        let meant = Self::meant(address);
        self.allowed.iter().any(|network| network.contains(&meant)) || is_public(meant)
    }
}

/// The IPv4 address that a mapped, compatible, translated (NAT64) or 6to4 address stands for.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let segments = address.segments();
    let low = || {
        let [a, b] = segments[6].to_be_bytes();
        let [c, d] = segments[7].to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        // ::ffff:0:0/96, and the older ::ffff:0:0:0/96 of RFC 2765.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(low()),
        // 64:ff9b::/96; the prefix for local use, 64:ff9b:1::/48, is not public whatever it stands for.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(low()),
        // ::/96, but for :: and ::1, which are themselves.
        [0, 0, 0, 0, 0, 0, high, low_bits] if high != 0 || low_bits > 1 => Some(low()),
        // 2002::/16
        [0x2002, first, second, ..] => {
            let [a, b] = first.to_be_bytes();
            let [c, d] = second.to_be_bytes();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

/// By the IANA registries of special-purpose addresses: what is not listed here is globally reachable.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !V4_SPECIAL.iter().any(|network| network.contains(&v4)),
        // Only 2000::/3 is given out at all.
        IpAddr::V6(v6) => {
            GLOBAL_UNICAST.contains(&v6) && !V6_SPECIAL.iter().any(|network| network.contains(&v6))
        }
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(a: u16, b: u16, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, 0, 0, 0, 0, 0, 0), length)
}

const V4_SPECIAL: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),        // this network
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // carrier-grade NAT; the metadata service of Alibaba is in it
    v4(127, 0, 0, 0, 8),      // loopback
    v4(168, 63, 129, 16, 32), // the metadata service of Azure
    v4(169, 254, 0, 0, 16),   // link-local; the metadata services of nearly everybody
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // protocol assignments; the metadata service of Oracle
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 88, 99, 0, 24),   // 6to4 relays
    v4(192, 168, 0, 0, 16),   // private
    v4(198, 18, 0, 0, 15),    // benchmarks
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved, and broadcast
];

const GLOBAL_UNICAST: Ipv6Net = v6(0x2000, 0, 3);
const V6_SPECIAL: [Ipv6Net; 4] = [
    v6(0x2001, 0, 23),     // protocol assignments, Teredo among them
    v6(0x2001, 0xdb8, 32), // documentation
    v6(0x2002, 0, 16),     // 6to4: judged as IPv4 before
    v6(0x3fff, 0, 20),     // documentation
];

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(policy: &AddressPolicy, text: &str) -> bool {
        policy.permits(text.parse().unwrap_or_else(|_| panic!("{text}")))
    }

    #[test]
    fn what_is_not_public_is_refused_however_it_is_written() {
        for address in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::2",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "::127.0.0.1",
            "::10.1.2.3",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "64:ff9b:1:a00:1::",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:a9fe:a9fe::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fd12:3456:789a::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
            "4000::1",
            "5f00::1",
        ] {
            assert!(!permits(&AddressPolicy::default(), address), "{address}");
        }
    }

    #[test]
    fn the_public_internet_is_permitted() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "128.0.0.1",
            "169.253.255.255",
            "169.255.0.1",
            "172.15.255.255",
            "172.32.0.1",
            "192.167.1.1",
            "198.17.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2606:4700:4700::1111",
            "2001:4860:4860::8888",
            "2a00:1450:4001:800::200e",
        ] {
            assert!(permits(&AddressPolicy::default(), address), "{address}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_permitted_and_no_more() {
        let policy = AddressPolicy::new(&["127.0.0.0/8", " fd00::/8", "10.1.2.3"]).unwrap();
        for address in ["127.0.0.1", "::ffff:127.0.0.1", "fd12::1", "10.1.2.3"] {
            assert!(permits(&policy, address), "{address}");
        }
        for address in ["10.1.2.4", "::1", "fc00::1", "169.254.169.254"] {
            assert!(!permits(&policy, address), "{address}");
        }
        for text in ["", "x", "10.0.0.0/33", "10.0.0", "localhost"] {
            assert!(AddressPolicy::new(&[text]).is_err(), "{text}");
        }
    }
}
