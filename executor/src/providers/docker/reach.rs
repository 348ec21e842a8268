//! Which addresses a name may lead boxes to: those that the rules let through.

use std::net::IpAddr;

use ipnet::IpNet;
use policy::AddressPolicy;

use super::exceptions::NetworkException;
use super::rules::{METADATA, POOL};

/// What is not public and open all the same, in the order of the rules.
#[derive(Debug)]
pub(super) struct Reach {
    exact: Vec<IpNet>,
    broad: Vec<IpNet>,
}

impl Reach {
    pub(super) fn new(exceptions: &[NetworkException]) -> Self {
        let (exact, broad): (Vec<_>, Vec<_>) = exceptions.iter().partition(|exception| exception.is_exact());
        let networks =
            |some: Vec<&NetworkException>| some.into_iter().map(NetworkException::network).collect();
        Self { exact: networks(exact), broad: networks(broad) }
    }

    /// Whether this address is not for boxes, on whatever port.
    pub(super) fn leads_inside(&self, address: IpAddr) -> bool {
        let meant = AddressPolicy::meant(address);
        let within = |networks: &[IpNet]| networks.iter().any(|network| network.contains(&meant));
        if IpNet::V4(POOL).contains(&meant) {
            return true;
        }
        if within(&self.exact) {
            return false;
        }
        within(&METADATA) || (!within(&self.broad) && !AddressPolicy::default().permits(meant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(exceptions: &[&str], address: &str) -> bool {
        let exceptions: Vec<_> = exceptions.iter().map(|text| text.parse().unwrap()).collect();
        Reach::new(&exceptions).leads_inside(address.parse().unwrap())
    }

    #[test]
    fn what_is_not_public_leads_inside_unless_it_is_opened() {
        let opened = ["10.0.0.0/8", "100.64.0.0/10:80", "169.254.169.254:80", "192.168.1.5", "fd00:1::/32"];
        for address in [
            "10.1.2.3",
            "100.64.0.1",
            "169.254.169.254",
            "192.168.1.5",
            "::ffff:10.1.2.3",
            "64:ff9b::c0a8:105",
            "2002:a01:203::",
            "fd00:1::5",
        ] {
            assert!(!inside(&opened, address), "{address}");
            assert!(inside(&[], address), "{address}");
        }
        for address in [
            "10.213.0.2",
            "::ffff:10.213.0.2",
            "100.100.100.200",
            "169.254.169.253",
            "192.168.1.6",
            "127.0.0.1",
            "fd00:2::5",
            "fe80::1",
            "::1",
            "64:ff9b::a9fe:1",
            "64:ff9b:1::1",
        ] {
            assert!(inside(&opened, address), "{address}");
        }
        for address in ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8"] {
            assert!(!inside(&[], address), "{address}");
        }
    }
}
