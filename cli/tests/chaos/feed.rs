//! A reader of a tenant's events that lives through everything, and what it must equal.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use sha2::{Digest, Sha256};

use crate::client::{Client, Violation};
use crate::hold;

/// How long a stream may be silent: blank lines come every ten seconds.
const SILENCE: Duration = Duration::from_secs(15);

/// Positions with the SHA-256 of what was sent for each.
type Seen = Vec<(u64, [u8; 32])>;

/// Follows a feed from its beginning, and comes back with the last position whenever the connection breaks.
pub struct Watcher {
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Watcher {
    pub fn start(client: Arc<Client>) -> Self {
        let seen = Arc::new(Mutex::new(Seen::new()));
        let noted = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let last = noted.lock().unwrap().last().map_or(0, |(position, _)| *position);
                let request =
                    client.request(Method::GET, "/events").header("last-event-id", last.to_string());
                read(request, |event| noted.lock().unwrap().push(event)).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Self { seen, task }
    }

    /// What it saw, once that is all that a reader finds who comes now, byte for byte.
    pub async fn equals_the_replay(&self, client: &Client) -> Result<Vec<u64>, Violation> {
        let mut replayed = Seen::new();
        let began = std::time::Instant::now();
        loop {
            let seen = self.seen.lock().unwrap().clone();
            let increasing = seen.windows(2).all(|pair| pair[0].0 < pair[1].0);
            hold!(increasing, "the live feed does not go forward: {:?}", disorder(&seen));
            if seen.len() >= replayed.len() && !replayed.is_empty() {
                let same = seen[..replayed.len()] == replayed[..];
                hold!(same, "live feed and replay differ: {:?}", difference(&seen, &replayed));
                return Ok(replayed.iter().map(|(position, _)| *position).collect());
            }
            hold!(
                began.elapsed() < Duration::from_secs(60),
                "the live feed stands at {:?}, the replay at {:?}",
                seen.last().map(|event| event.0),
                replayed.last().map(|event| event.0)
            );
            if replayed.is_empty() {
                let request = client.request(Method::GET, "/events?after=0&follow=false");
                let whole = read(request, |event| replayed.push(event)).await;
                if !whole {
                    replayed.clear();
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads server-sent events. False when the stream broke.
async fn read(request: reqwest::RequestBuilder, mut note: impl FnMut((u64, [u8; 32]))) -> bool {
    let Ok(Ok(response)) = tokio::time::timeout(SILENCE, request.send()).await else { return false };
    if !response.status().is_success() {
        return false;
    }
    let mut body = response.bytes_stream();
    let mut rest: Vec<u8> = Vec::new();
    loop {
        match tokio::time::timeout(SILENCE, body.next()).await {
            Ok(Some(Ok(bytes))) => rest.extend_from_slice(&bytes),
            Ok(None) => return rest.is_empty(),
            Ok(Some(Err(_))) | Err(_) => return false,
        }
        while let Some(end) = rest.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = rest.drain(..end + 2).collect();
            let text = String::from_utf8(block).unwrap();
            let id = text.lines().find_map(|line| line.strip_prefix("id: "));
            if let Some(position) = id.and_then(|id| id.parse().ok()) {
                note((position, Sha256::digest(&text).into()));
            }
        }
    }
}

fn disorder(seen: &Seen) -> Vec<u64> {
    let at = seen.windows(2).position(|pair| pair[0].0 >= pair[1].0).unwrap_or_default();
    seen[at.saturating_sub(3)..(at + 5).min(seen.len())].iter().map(|(position, _)| *position).collect()
}

fn difference(seen: &Seen, replayed: &Seen) -> (Vec<u64>, Vec<u64>) {
    let at = seen.iter().zip(replayed).position(|(a, b)| a != b).unwrap_or_default();
    let around = |all: &Seen| {
        all[at.saturating_sub(3)..(at + 5).min(all.len())].iter().map(|(position, _)| *position).collect()
    };
    (around(seen), around(replayed))
}
