//! Who is turned away, counted: an attack must show in the record, and must not be able to fill it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use events::{AccessDenied, TenantId};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Requests that were turned away.
pub const ACCESS_DENIED: &str = "stacyvm_access_denied_total";
/// What is counted together: no more than two events a window, of each source and reason.
const WINDOW: Duration = Duration::from_secs(60);
/// After so long without another one, the first event of a window is written: what was a single burst is one event.
const QUIET: Duration = Duration::from_secs(1);
/// How many sources are told apart at a time. Past that, what comes is counted by its reason alone.
const MAX_WINDOWS: usize = 256;

/// Why somebody was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Denial {
    /// No key, where one is needed.
    NoKey,
    /// A key that is none.
    WrongKey,
    /// A browser of another site.
    Origin,
    /// A host name that this server does not answer to.
    Host,
    /// A ticket that is spent, expired, or none.
    Ticket,
    /// A viewer link that has expired, is for something else, or is none.
    ViewerLink,
    /// Something that is not the tenant's own, whether it is another's or nobody's: who asks is not told which, also not by
    /// this. Where there are several tenants only.
    Tenant,
    /// Something that the credential is not for, whatever it is done to.
    Right,
}

impl Denial {
    /// All there are.
    pub const ALL: [Self; 8] = [
        Self::NoKey,
        Self::WrongKey,
        Self::Origin,
        Self::Host,
        Self::Ticket,
        Self::ViewerLink,
        Self::Tenant,
        Self::Right,
    ];

    /// In the record, on the log and on the metric.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NoKey => "no key",
            Self::WrongKey => "wrong key",
            Self::Origin => "foreign origin",
            Self::Host => "foreign host",
            Self::Ticket => "bad ticket",
            Self::ViewerLink => "bad viewer link",
            Self::Tenant => "not the tenant's",
            Self::Right => "not allowed",
        }
    }
}

/// Rides on an answer that turns somebody away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// Why the request was turned away.
    pub denial: Denial,
    /// Whose credential it was, as far as that is known.
    pub tenant: Option<TenantId>,
}

/// The address at the other end of the connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The name under which a source is counted: whoever has an IPv6 network has all of its addresses.
pub fn source_name(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) if address.is_loopback() => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    tenant: TenantId,
    source: Option<String>,
    denial: Denial,
}

#[derive(Debug)]
struct Counted {
    route: String,
    count: u64,
    first_at: DateTime<Utc>,
    last_at: DateTime<Utc>,
    opened: Instant,
    last: Instant,
    told: bool,
}

/// What has been counted and is not written yet.
#[derive(Debug, Default)]
pub struct Denials {
    windows: Mutex<HashMap<Key, Counted>>,
    opened: Notify,
}

/// One event that is to be written: whose it is, what it says, and when the last one of it was.
pub type Due = (TenantId, AccessDenied, DateTime<Utc>);

impl Denials {
    /// Counts somebody who was turned away.
    pub fn count(&self, denied: &Denied, peer: Option<IpAddr>, route: String, now: DateTime<Utc>) {
        let reason = denied.denial.reason();
        metrics::counter!(ACCESS_DENIED, "reason" => reason).increment(1);
        let mut key = Key {
            tenant: denied.tenant.clone().unwrap_or_else(TenantId::system),
            source: peer.map(source_name),
            denial: denied.denial,
        };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_WINDOWS && !windows.contains_key(&key) {
            key.source = None;
            key.tenant = TenantId::system();
        }
        let at = Instant::now();
        let counted = windows.entry(key.clone()).or_insert_with(|| {
            let source = key.source.as_deref().unwrap_or("many");
            tracing::info!(
                access.source = source,
                access.reason = reason,
                access.route = route,
                "access denied"
            );
            self.opened.notify_one();
            Counted {
                route: String::new(),
                count: 0,
                first_at: now,
                last_at: now,
                opened: at,
                last: at,
                told: false,
            }
        });
        if counted.count == 0 {
            counted.route = route;
            counted.first_at = now;
        }
        counted.count += 1;
        counted.last_at = now;
        counted.last = at;
    }

    /// Takes what is to be written now; all of it with `all`.
    pub fn due(&self, all: bool) -> Vec<Due> {
        let mut due = Vec::new();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.retain(|key, counted| {
            let over = counted.opened.elapsed() >= WINDOW;
            let quiet = !counted.told && counted.last.elapsed() >= QUIET;
            if (all || over || quiet) && counted.count > 0 {
                let count = std::mem::take(&mut counted.count);
                let denied = AccessDenied {
                    route: std::mem::take(&mut counted.route),
                    reason: key.denial.reason().to_owned(),
                    source: key.source.clone(),
                    count,
                    first_at: (count > 1).then_some(counted.first_at),
                };
                counted.told = true;
                due.push((key.tenant.clone(), denied, counted.last_at));
            }
            !over
        });
        due
    }

    /// Waits until there is something to be written, now or in a while.
    pub async fn any(&self) {
        if self.is_empty() {
            self.opened.notified().await;
        }
    }

    fn is_empty(&self) -> bool {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    fn denied(denial: Denial) -> Denied {
        Denied { denial, tenant: None }
    }

    fn count(denials: &Denials, denial: Denial, n: u32) {
        let now = DateTime::from_timestamp(1_750_000_000, 0).unwrap();
        denials.count(&denied(denial), Some(address(n)), "GET /sandboxes".to_owned(), now);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_one_event_and_what_follows_in_its_minute_another() {
        let denials = Denials::default();
        for _ in 0..50 {
            count(&denials, Denial::WrongKey, 1);
        }
        assert!(denials.due(false).is_empty(), "it may not be over");
        tokio::time::sleep(QUIET).await;
        let due = denials.due(false);
        let (_, burst, _) = &due[0];
        assert_eq!((due.len(), burst.count, burst.source.as_deref()), (1, 50, Some("10.0.0.1")));
        assert_eq!((burst.reason.as_str(), burst.route.as_str()), ("wrong key", "GET /sandboxes"));
        for _ in 0..7 {
            count(&denials, Denial::WrongKey, 1);
            tokio::time::sleep(QUIET * 2).await;
            assert!(denials.due(false).is_empty(), "once more in this minute, and no more");
        }
        tokio::time::sleep(WINDOW).await;
        let due = denials.due(false);
        assert_eq!((due.len(), due[0].1.count), (1, 7));
        assert!(denials.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn reasons_and_sources_are_apart_and_both_are_bounded() {
        let denials = Denials::default();
        count(&denials, Denial::NoKey, 1);
        count(&denials, Denial::WrongKey, 1);
        count(&denials, Denial::WrongKey, 2);
        assert_eq!(denials.due(true).len(), 3);
        for n in 0..100_000 {
            count(&denials, Denial::WrongKey, n);
        }
        let due = denials.due(true);
        assert!(due.len() <= MAX_WINDOWS + 1, "{}", due.len());
        assert_eq!(due.iter().map(|(_, denied, _)| denied.count).sum::<u64>(), 100_000);
        assert!(due.iter().any(|(_, denied, _)| denied.source.is_none()));
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        for (address, name) in [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::1", "::1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ] {
            assert_eq!(source_name(address.parse().unwrap()), name);
        }
    }
}
