//! Which server is connected to.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{Client, ConnectError, ConnectOptions, ReconnectToServer, Server, ServerAddr};

use super::is_refusal;

/// Connects to one of these servers, and later to others. Each is tried once.
pub(super) async fn connect(options: &ConnectOptions, servers: &[String]) -> Result<Client, ConnectError> {
    let left: Arc<Mutex<Option<ServerAddr>>> = Arc::default();
    let options = options.clone().reconnect_to_server_callback(move |servers, _| {
        let mut left = left.lock().unwrap_or_else(PoisonError::into_inner);
        let next = elsewhere(&servers, left.as_ref());
        left.clone_from(&next);
        std::future::ready(next.map(|addr| ReconnectToServer { addr, delay: None }))
    });
    let mut tries = servers.len();
    loop {
        tries = tries.saturating_sub(1);
        match options.clone().connect(servers.to_vec()).await {
            Err(error) if tries > 0 && !is_refusal(&error) => {}
            outcome => return outcome,
        }
    }
}

/// Any of those that failed the least, and never the one that was just left, if there is another one: the library takes it as
/// soon as any, and a server that is frozen is known by nothing but its silence.
fn elsewhere(servers: &[Server], left: Option<&ServerAddr>) -> Option<ServerAddr> {
    let others = || servers.iter().filter(|server| servers.len() == 1 || Some(&server.addr) != left);
    let fewest = others().map(|server| server.failed_attempts).min()?;
    let best: Vec<&Server> = others().filter(|server| server.failed_attempts == fewest).collect();
    let any = usize::try_from(RandomState::new().hash_one(0_u8) % best.len() as u64).ok()?;
    best.get(any).map(|server| server.addr.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16, failed_attempts: usize) -> Server {
        let addr = format!("nats://127.0.0.1:{port}").parse().unwrap();
        Server { addr, failed_attempts, did_connect: true, is_discovered: false, last_error: None }
    }

    #[test]
    fn the_server_that_was_left_is_not_the_next_one() {
        let servers = [server(1, 0), server(2, 0), server(3, 4)];
        for _ in 0..20 {
            assert_eq!(elsewhere(&servers, Some(&servers[0].addr)), Some(servers[1].addr.clone()));
            assert_eq!(elsewhere(&servers[..1], Some(&servers[0].addr)), Some(servers[0].addr.clone()));
            assert_ne!(elsewhere(&servers, None), Some(servers[2].addr.clone()));
        }
        assert_eq!(elsewhere(&[], None), None);
    }
}
