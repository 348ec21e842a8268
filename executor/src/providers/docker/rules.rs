//! What boxes with a network reach: one nftables table for each installation.
//!
//! It matches interfaces by the beginning of their names, so it is the same whatever boxes there are: it is put in place whole, in one
//! transaction, before any network is made.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::exceptions::NetworkException;

/// Where networks are made, a /30 each.
pub(super) const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16);

/// What an exception must name by its very address: link-local, and what clouds have elsewhere for their machines (Alibaba, Azure,
/// Oracle; of IPv6 Amazon and Google).
pub(super) const METADATA: [IpNet; 7] = [
    v4(169, 254, 0, 0, 16),
    v4(100, 100, 100, 200, 32),
    v4(168, 63, 129, 16, 32),
    v4(192, 0, 0, 192, 32),
    v6([0xfe80, 0, 0, 0], 10),
    v6([0xfd00, 0xec2, 0, 0x254], 128),
    v6([0xfd20, 0xce, 0, 0x254], 128),
];

/// What is never reached without an exception: this network, private and shared ranges, loopback, relays, benchmarks, multicast, what is
/// reserved. What is to be named by its address comes before.
const CLOSED: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.0.0.0/24, \
    192.88.99.0/24, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/3";

/// What one box may ask of name servers: packets a second and in a burst, bytes a second and in a burst, and the bytes of one
/// datagram with its header. A name has at most 255 bytes, so no question is longer.
const ASKS: &str = "50/second burst 200 packets";
const ASKED_BYTES: &str = "16 kbytes/second burst 64 kbytes";
const LONGEST_ASK: u16 = 520;

/// The ports that names are asked for on.
const NAMES: [u16; 2] = [53, 853];

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

/// The first three groups and the last one.
const fn v6(groups: [u16; 4], length: u8) -> IpNet {
    let [a, b, c, last] = groups;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last), length))
}

/// What the rules follow from.
pub(super) struct Rules<'a> {
    /// How the names of bridges begin.
    pub prefix: &'a str,
    /// What the operator opened.
    pub exceptions: &'a [NetworkException],
}

pub(super) fn table(prefix: &str) -> String {
    format!("stacyvm_{prefix}")
}

/// Takes the table away, whether it is there or not.
pub(super) fn without(prefix: &str) -> String {
    let table = table(prefix);
    format!("add table inet {table}\ndelete table inet {table}\n")
}

impl Rules<'_> {
    /// The table, whole: whatever it was before. Packets are looked at before addresses are translated (what was asked for) and after
    /// (where it would go). A drop is final, whatever other tables accept.
    ///
    /// Rules for one box belong into `box`, before what the operator opened for all: a map from the bridge's name to a chain.
    pub(super) fn text(&self) -> String {
        let (prefix, table) = (self.prefix, table(self.prefix));
        // The host's end of the very network that it comes from: not that of another box, and no other address of the host.
        let ask = "fib daddr . iif type local meta l4proto { tcp, udp } th dport 53";
        let [port, encrypted] = NAMES;
        let named = self.exceptions.iter().filter_map(|exception| exception.names_rule(NAMES));
        let named: String = named.map(|rule| format!("    {rule}\n")).collect();
        let open = |exact: bool| -> String {
            let some = self.exceptions.iter().filter(|exception| exception.is_exact() == exact);
            some.map(|exception| format!("    {}\n", exception.rule())).collect()
        };
        let of_family =
            |v6: bool| listed(METADATA.iter().filter(|network| matches!(network, IpNet::V6(_)) == v6));
        let (exact, broad, metadata, metadata_v6) =
            (open(true), open(false), of_family(false), of_family(true));
        let counted = "type ifname; size 65535; flags dynamic,timeout; timeout 1m;";
        format!(
            "{}table inet {table} {{
  set asks {{ {counted} }}
  set asked_bytes {{ {counted} }}
  chain asked {{
    type filter hook prerouting priority -310; policy accept;
    iifname \"{prefix}*\" meta l4proto {{ tcp, udp }} th dport {{ {port}, {encrypted} }} jump names
    iifname \"{prefix}*\" jump box
  }}
  chain host {{
    type filter hook input priority -10; policy accept;
    iifname \"{prefix}*\" {ask} accept
    iifname \"{prefix}*\" drop
  }}
  chain through {{
    type filter hook forward priority -10; policy accept;
    oifname \"{prefix}*\" ct state != {{ established, related }} drop
    iifname \"{prefix}*\" jump box
  }}
  chain names {{
    udp length > {LONGEST_ASK} drop
    update @asks {{ iifname limit rate over {ASKS} }} drop
    update @asked_bytes {{ iifname limit rate over {ASKED_BYTES} }} drop
    {ask} return
{named}    drop
  }}
  chain box {{
    ip option lsrr exists drop
    ip option ssrr exists drop
    meta nfproto ipv4 ip saddr != {POOL} drop
    {ask} accept
    ip daddr {POOL} drop
    fib daddr type {{ local, broadcast, anycast, multicast }} drop
{exact}    ip daddr {{ {metadata} }} drop
    ip6 daddr {{ {metadata_v6} }} drop
{broad}    meta nfproto != ipv4 drop
    ip daddr {{ {CLOSED} }} drop
  }}
}}
",
            without(prefix)
        )
    }
}

fn listed<T: ToString>(all: impl IntoIterator<Item = T>) -> String {
    all.into_iter().map(|one| one.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::nft;
    use super::*;

    fn text(exceptions: &[&str]) -> String {
        let exceptions: Vec<_> = exceptions.iter().map(|text| text.parse().unwrap()).collect();
        Rules { prefix: "sv123456", exceptions: &exceptions }.text()
    }

    fn place(text: &str, line: &str) -> usize {
        text.find(line).unwrap_or_else(|| panic!("{line:?} in\n{text}"))
    }

    #[test]
    fn exceptions_are_behind_what_is_never_open_and_broad_ones_behind_metadata() {
        let all = text(&["10.0.0.0/8", "169.254.169.254:80", "fd00::/8"]);
        let order = [
            "    ip daddr 10.213.0.0/16 drop",
            "    fib daddr type { local, broadcast, anycast, multicast } drop",
            "    ip daddr 169.254.169.254 meta l4proto { tcp, udp } th dport 80 accept",
            "    ip daddr { 169.254.0.0/16, 100.100.100.200/32, 168.63.129.16/32, 192.0.0.192/32 } drop",
            "    ip6 daddr { fe80::/10, fd00:ec2::254/128, fd20:ce::254/128 } drop",
            "    ip daddr 10.0.0.0/8 accept",
            "    ip6 daddr fd00::/8 accept",
            "    meta nfproto != ipv4 drop",
            "    ip daddr { 0.0.0.0/8",
        ]
        .map(|line| place(&all, line));
        assert!(order.is_sorted(), "{order:?}\n{all}");
    }

    #[test]
    fn names_are_asked_of_the_hosts_end_of_a_network_only_and_of_whom_an_exception_names_with_the_port() {
        let ask = "fib daddr . iif type local meta l4proto { tcp, udp } th dport 53";
        let ending = |all: &str, end: &str| -> Vec<String> {
            all.lines().filter(|line| line.ends_with(end)).map(|line| line.trim().to_owned()).collect()
        };
        let all = text(&[]);
        assert_eq!(
            ending(&all, " accept"),
            [format!("iifname \"sv123456*\" {ask} accept"), format!("{ask} accept")]
        );
        assert_eq!(ending(&all, " return"), [format!("{ask} return")]);
        let names = &all[place(&all, "chain names")..place(&all, "chain box")];
        assert!(names.trim_end().ends_with("    drop\n  }"), "{names}");

        let all = text(&[
            "10.0.0.0/8",
            "10.0.0.5",
            "10.0.0.6:80-852",
            "10.0.0.7:53",
            "9.9.9.9:1-1000",
            "[fd00::5]:853",
        ]);
        let to =
            |to: &str, ports: &str| format!("{to} meta l4proto {{ tcp, udp }} th dport {{ {ports} }} return");
        assert_eq!(
            ending(&all, " return"),
            [
                format!("{ask} return"),
                to("ip daddr 10.0.0.7/32", "53"),
                to("ip daddr 9.9.9.9/32", "53, 853"),
                to("ip6 daddr fd00::5/128", "853"),
            ]
        );
    }

    #[tokio::test]
    async fn nft_takes_them_whatever_is_opened() {
        for all in [
            text(&[]),
            text(&[
                "10.0.0.0/8:1-99",
                "10.0.0.5",
                "10.0.0.6:53",
                "fd00::/64",
                "[fd00::1]:443",
                "[fd00::2]:53",
            ]),
        ] {
            nft::try_out(&all).await.unwrap_or_else(|error| panic!("{error}\n{all}"));
        }
    }
}
