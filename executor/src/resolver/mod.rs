//! The name server of boxes with a network, and the only one that they reach.
//!
//! It stands at the host's end of each box's network, asks the deployment's servers, and tells nothing that leads inside: an answer is
//! judged whole, so that no part of it is left to be used. It remembers nothing between two questions: what a name led to is judged
//! whenever it is asked.

mod counts;
mod judge;
mod listener;
mod names;
mod packet;
mod rate;
mod upstream;

#[cfg(test)]
mod on_loopback;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use events::SandboxId;
use ipnet::Ipv4Net;
use rustix::process::{Resource, getrlimit};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::Semaphore;
use uuid::Uuid;

use listener::Listening;
use upstream::Upstream;

pub use names::{Name, NotAName};

/// Questions that are with the deployment's servers at once, of all boxes. Each has a socket.
const QUESTIONS: usize = 256;
/// Connections of all boxes at once.
const CONNECTIONS: usize = 1_024;
/// What part of the files that this process may have open either of them may take.
const SHARE: u64 = 8;

/// Whether an address is one that boxes must not be led to.
pub(crate) type LeadsInside = Box<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Shows its metrics, also where no box has a network.
pub(crate) fn describe_metrics() {
    counts::Verdict::describe();
}

/// Answers the questions of boxes.
pub(crate) struct Resolver {
    shared: Arc<Shared>,
    listening: Mutex<HashMap<SandboxId, Listening>>,
}

struct Shared {
    upstream: Upstream,
    judge: judge::Judge,
    questions: Semaphore,
    connections: Arc<Semaphore>,
}

impl Resolver {
    /// `servers`: whom it asks; if there are none, those of this machine. `open_names`: names of the inside that are asked all the same, with
    /// all below them.
    pub(crate) fn new(servers: &[Ipv4Addr], open_names: Vec<Name>, leads_inside: LeadsInside) -> Self {
        let servers = servers.iter().map(|address| SocketAddr::from((*address, packet::PORT))).collect();
        Self {
            shared: Arc::new(Shared {
                upstream: Upstream::new(servers),
                judge: judge::Judge { leads_inside, open_names },
                questions: Semaphore::new(most(QUESTIONS)),
                connections: Arc::new(Semaphore::new(most(CONNECTIONS))),
            }),
            listening: Mutex::default(),
        }
    }

    /// Listens for the questions of a box at the host's end of its network, unless it does already.
    pub(crate) async fn listen(&self, id: SandboxId, network: Ipv4Net) -> io::Result<()> {
        if self.of(id).is_some_and(|listening| listening == network) {
            return Ok(());
        }
        self.leave(id);
        let listening = Listening::begin(&self.shared, network).await?;
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).insert(id, listening);
        Ok(())
    }

    /// Listens no longer.
    pub(crate) fn leave(&self, id: SandboxId) {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Listens for those boxes only. Called every few seconds.
    pub(crate) fn keep(&self, wanted: impl Fn(SandboxId) -> bool) {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| wanted(*id));
    }

    /// Whom a box asks.
    pub(crate) fn address(&self, id: SandboxId) -> Option<Ipv4Addr> {
        self.of(id).map(host_end)
    }

    fn of(&self, id: SandboxId) -> Option<Ipv4Net> {
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        listening.get(&id).filter(|listening| listening.lives()).map(|listening| listening.network)
    }

    /// Whether names could be answered here: whether this process may listen, and nobody listens on all addresses. Tried out on an
    /// address of the loopback network that nobody else has a reason to listen on; those of others who try are other ones.
    pub(crate) async fn try_out(whose: &str) -> io::Result<()> {
        let [a, b, c, ..] = *Uuid::new_v5(&Uuid::NAMESPACE_OID, whose.as_bytes()).as_bytes();
        let address = SocketAddr::from((Ipv4Addr::new(127, a | 128, b, c.clamp(1, 254)), packet::PORT));
        UdpSocket::bind(address).await?;
        TcpListener::bind(address).await?;
        Ok(())
    }
}

/// So many, or as many as there are files for.
fn most(of: usize) -> usize {
    let files = getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |files| usize::try_from(files / SHARE).unwrap_or(usize::MAX));
    of.min(files).max(1)
}

/// The host's address on a box's network: the first one.
pub(crate) fn host_end(network: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.network()) + 1)
}
