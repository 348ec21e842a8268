//! What all parts of the executor share: who it is, what it works with, and what it knows right now.

use std::sync::Arc;
use std::time::Duration;

use agent::client::Connections;
use events::{Clock, NodeId, ProviderName};
use objects::Store;
use policy::{DiskFloor, LowDisk};
use secrets::{Redaction, RedactionRules};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use transport::Log;

use crate::hosted::Registry;
use crate::neighbours::Neighbours;
use crate::provider::{Pooled, Provider};
use crate::pulse::Pulse;
use crate::recorded::Recorded;
use crate::turns::{BoxWork, Starts};

/// How one executor works.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// Its node. One executor a node.
    pub node: NodeId,
    /// How many sandboxes it takes.
    pub capacity: u32,
    /// Past how many bytes the output of one exec is cut off, with a marker.
    pub max_output_bytes: u64,
    /// How long the end of an exec waits for what it left running to close its output, where the exec does not say. Then it ends, and
    /// what still comes is recorded as its output until it is closed. 10 s at most.
    pub linger: Duration,
    /// What is masked in all that it publishes.
    pub redaction: RedactionRules,
    /// Whether what clients send to stdin is recorded.
    pub record_input: bool,
    /// What has to stay free on the disks of this node. Below it no sandbox is taken.
    pub disk: DiskFloor,
    /// Where files are kept that outlive their sandbox; none: nowhere, and no job keeps any.
    pub objects: Option<Store>,
    /// How many connections to agents it has at once, for all sandboxes together.
    pub agent_connections: usize,
}

/// What all parts of the executor share.
pub struct Shared {
    pub config: ExecutorConfig,
    pub log: Log,
    pub providers: Vec<Pooled>,
    pub clock: Arc<dyn Clock>,
    /// What is masked everywhere.
    pub redaction: Redaction,
    pub registry: Arc<Registry>,
    pub recorded: Arc<Recorded>,
    /// To all agents.
    pub connections: Connections,
    /// Who works here.
    pub neighbours: Arc<Neighbours>,
    /// Making and removing boxes.
    pub boxes: Arc<BoxWork>,
    /// Starting processes.
    pub starts: Starts,
    /// Connections for input that are kept while nothing comes over them.
    pub inputs: Arc<Semaphore>,
    pub pulse: Pulse,
    pub shutdown: CancellationToken,
    /// Set when it knows what is on this node. What is asked of it before waits for that.
    pub joined: CancellationToken,
}

impl Shared {
    /// A disk with too little room for more boxes: one of this node, or one that the provider's boxes write on.
    pub async fn low_disk(&self, provider: &dyn Provider) -> Option<LowDisk> {
        let disk = &self.config.disk;
        if let Some(low) = disk.low() {
            return Some(low);
        }
        disk.low_of(&provider.directories().await)
    }

    pub fn provider(&self, name: &ProviderName) -> Option<Arc<dyn Provider>> {
        let mut all = self.providers.iter().map(|it| &it.provider);
        all.find(|provider| provider.name() == name).map(Arc::clone)
    }
}
