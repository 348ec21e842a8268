//! Signs of life of executors, on core NATS: worth nothing a few seconds later, so never stored.

use events::{NodeId, PoolName, ProviderName};
use futures::StreamExt;
use serde::{Deserialize, Serialize};

use super::{ListenError, Log};

/// One sign of life, sent every second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// The node.
    pub node: NodeId,
    /// Its box-makers.
    pub providers: Vec<ProviderHealth>,
    /// How many sandboxes it takes.
    pub capacity: u32,
    /// How many it has.
    pub used: u32,
    /// Whether it takes no new ones.
    pub draining: bool,
    /// What its machine has; not said by older nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
}

/// What a machine has, and a sandbox cannot have more of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// CPUs.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
}

/// How one box-maker of a node fares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProviderHealth {
    /// The provider.
    pub name: ProviderName,
    /// The pool that it serves; not said by older nodes, where it is called as the provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<PoolName>,
    /// Whether it works.
    pub healthy: bool,
    /// How long its last check took, in milliseconds.
    pub latency_ms: u64,
    /// What is wrong, in one sentence that may be shown to a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// How many boxes it has.
    pub boxes: u32,
    /// What an operator should know: old versions with known holes, limits that do not take effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

impl ProviderHealth {
    /// The pool that it serves.
    pub fn pool(&self) -> PoolName {
        self.pool.clone().unwrap_or_else(|| PoolName::from(&self.name))
    }
}

/// The signs of life of all nodes.
pub struct Heartbeats(async_nats::Subscriber);

impl Log {
    /// Shows that this node lives.
    pub async fn beat(&self, heartbeat: &Heartbeat) {
        let Ok(payload) = serde_json::to_vec(heartbeat) else {
            return;
        };
        let subject = self.subjects().heartbeat(&heartbeat.node);
        if let Err(error) = self.client().publish(subject, payload.into()).await {
            tracing::debug!(error = %error, "heartbeat not sent");
        }
    }

    /// Listens for signs of life.
    pub async fn heartbeats(&self) -> Result<Heartbeats, ListenError> {
        let subject = self.subjects().heartbeats();
        self.client().subscribe(subject).await.map(Heartbeats).map_err(|_| ListenError)
    }
}

impl Heartbeats {
    /// The next one; `None` when the connection was closed for good. What cannot be read is passed over.
    pub async fn next(&mut self) -> Option<Heartbeat> {
        loop {
            let message = self.0.next().await?;
            if let Ok(heartbeat) = serde_json::from_slice(&message.payload) {
                return Some(heartbeat);
            }
        }
    }
}
