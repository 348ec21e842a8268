//! Names that mean something inside only.

use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::rr;

/// What names end with that nobody has outside: RFC 6761, 6762 and its appendix G, 7686, 8375, 9476, and `internal`.
const TOPS: [&[u8]; 13] = [
    b"alt",
    b"corp",
    b"home",
    b"internal",
    b"intranet",
    b"invalid",
    b"lan",
    b"local",
    b"localdomain",
    b"localhost",
    b"onion",
    b"private",
    b"workgroup",
];
/// The same below `arpa`: RFC 8375, 9462.
const BELOW_ARPA: [&[u8]; 2] = [b"home", b"resolver"];
/// How many labels a name has that stands for an address.
const OF_V4: u8 = 4 + 2;
const OF_V6: u8 = 32 + 2;

/// A name that an operator wrote: `mirror.internal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(rr::Name);

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name that could be asked for: write mirror.internal")]
pub struct NotAName(String);

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotAName(text.to_owned());
        let trimmed = text.trim();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if trimmed.parse::<IpAddr>().is_ok() || !trimmed.bytes().all(plain) {
            return Err(wrong());
        }
        let mut name = rr::Name::from_ascii(trimmed).map_err(|_| wrong())?;
        name.set_fqdn(true);
        if name.is_root() { Err(wrong()) } else { Ok(Self(name)) }
    }
}

/// Whether a name is to be kept from servers that may know what is inside.
pub(super) fn is_closed(name: &rr::Name, open: &[Name], leads_inside: &dyn Fn(IpAddr) -> bool) -> bool {
    if name.is_root() || open.iter().any(|Name(zone)| zone.zone_of(name)) {
        return false;
    }
    let mut labels = name.iter().rev().map(<[u8]>::to_ascii_lowercase);
    let (Some(top), Some(second)) = (labels.next(), labels.next()) else {
        // `db`, `wpad`: whoever knows it knows it of the inside.
        return true;
    };
    if top != b"arpa" {
        return TOPS.contains(&&*top);
    }
    if second == b"in-addr" || second == b"ip6" {
        let whole = |network: ipnet::IpNet| network.prefix_len() == network.max_prefix_len();
        let stands_for = name.parse_arpa_name().ok().filter(|network| whole(*network));
        let labels = name.num_labels();
        // Parts of an address, and what is written below one, are about a network.
        return !stands_for
            .is_some_and(|network| (labels == OF_V4 || labels == OF_V6) && !leads_inside(network.addr()));
    }
    BELOW_ARPA.contains(&&*second)
}

#[cfg(test)]
mod tests {
    use policy::AddressPolicy;

    use super::*;

    fn closed(name: &str, open: &[&str]) -> bool {
        let mut parsed = rr::Name::from_ascii(name).unwrap();
        parsed.set_fqdn(true);
        let open: Vec<Name> = open.iter().map(|name| name.parse().unwrap()).collect();
        is_closed(&parsed, &open, &|address| !AddressPolicy::default().permits(address))
    }

    fn reverse(address: &str) -> String {
        rr::Name::from(address.parse::<IpAddr>().unwrap()).to_ascii()
    }

    #[test]
    fn names_of_the_inside_are_closed_however_they_are_written() {
        for name in [
            "localhost",
            "LOCALHOST.",
            "x.localhost",
            "db",
            "wpad.",
            "printer.local",
            "Printer.LOCAL.",
            "a.b.internal",
            "metadata.google.internal.",
            "instance-data.ec2.internal",
            "host.docker.internal",
            "router.lan",
            "x.home.arpa",
            "home.arpa",
            "_dns.resolver.arpa",
            "x.corp",
            "x.intranet",
            "x.private",
            "x.home",
            "x.onion",
            "x.invalid",
            "arpa",
            "in-addr.arpa",
            "10.in-addr.arpa",
            "168.192.in-addr.arpa",
            "8.8.8.in-addr.arpa",
            "b._dns-sd._udp.0.0.168.192.in-addr.arpa",
            "x.8.8.8.8.in-addr.arpa",
            "256.8.8.8.in-addr.arpa",
            "ip6.arpa",
            "d.f.ip6.arpa",
            "1.ip6.arpa",
            "x.IN-ADDR.arpa",
            "1.1.10.10.IN-ADDR.ARPA",
        ] {
            assert!(closed(name, &[]), "{name}");
        }
        for address in [
            "10.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "192.168.0.1",
            "100.64.0.1",
            "0.0.0.0",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:a00:1::",
        ] {
            assert!(closed(&reverse(address), &[]), "{address}");
        }
    }

    #[test]
    fn names_of_the_outside_and_what_an_operator_opens_are_not() {
        for name in [
            "example.com",
            "a.b.c.example",
            "local.example.com",
            "internal.dev",
            "xlocal.net",
            "known.test",
            ".",
        ] {
            assert!(!closed(name, &[]), "{name}");
        }
        for address in ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"] {
            assert!(!closed(&reverse(address), &[]), "{address}");
        }
        for name in ["mirror.corp", "a.mirror.corp", "MIRROR.Corp.", "db", "3.2.1.10.in-addr.arpa"] {
            assert!(!closed(name, &["mirror.corp", "DB", "1.10.in-addr.arpa"]), "{name}");
        }
        for name in ["corp", "xmirror.corp", "mirror.corp.local", "db.local", "4.2.2.10.in-addr.arpa"] {
            assert!(closed(name, &["mirror.corp", "db", "1.10.in-addr.arpa"]), "{name}");
        }
    }

    #[test]
    fn what_is_no_name_cannot_be_opened() {
        for text in [
            "",
            ".",
            "10.0.0.1",
            "*.corp",
            "a b",
            "a..b",
            "x\u{e4}.corp",
            "fd00::1",
            &"a".repeat(64),
            &"a.".repeat(200),
        ] {
            let error = text.parse::<Name>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
