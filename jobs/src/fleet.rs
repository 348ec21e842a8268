//! What the nodes have, as far as they have said so lately.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use events::{HoldReason, NodeId, PoolName, ProviderName};
use tokio::time::Instant;
use transport::Heartbeat;

/// A node that has been silent for longer is not counted on.
const SILENCE: Duration = Duration::from_secs(5);

/// What the nodes have. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Fleet(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    nodes: HashMap<NodeId, (Heartbeat, Instant)>,
    /// Since when it is listened to nodes.
    since: Option<Instant>,
}

/// What keeps a job from any node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The kind of reason.
    pub reason: HoldReason,
    /// What is missing.
    pub message: String,
}

impl Fleet {
    /// Takes in a sign of life.
    pub fn heard(&self, heartbeat: Heartbeat) {
        let now = Instant::now();
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.since.get_or_insert(now);
        inner.nodes.insert(heartbeat.node.clone(), (heartbeat, now));
        inner.nodes.retain(|_, (_, at)| now.duration_since(*at) < SILENCE);
    }

    /// It is listened to nodes from now on.
    pub fn listen(&self) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.since.get_or_insert_with(Instant::now);
    }

    fn serving<T>(&self, pool: &PoolName, of: impl Fn(&mut dyn Iterator<Item = &Heartbeat>) -> T) -> T {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let lively = |at: &Instant| now.duration_since(*at) < SILENCE;
        let serves = |beat: &Heartbeat| {
            !beat.draining && beat.providers.iter().any(|it| it.healthy && it.pool() == *pool)
        };
        let nodes = inner.nodes.values().filter(|(_, at)| lively(at)).map(|(beat, _)| beat);
        of(&mut nodes.filter(|beat| serves(beat)))
    }

    /// How many sandboxes the nodes of a pool take together.
    pub fn capacity(&self, pool: &PoolName) -> usize {
        self.serving(pool, |nodes| nodes.map(|beat| beat.capacity as usize).sum())
    }

    /// What keeps a sandbox of this size from all nodes of a pool, however empty they are. Nothing is said before nodes had time to
    /// show themselves.
    pub fn hold(
        &self,
        pool: &PoolName,
        provider: &ProviderName,
        cpu_millis: u32,
        memory_mib: u32,
    ) -> Option<Hold> {
        let warm = {
            let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            inner.since.is_some_and(|since| since.elapsed() >= SILENCE)
        };
        if !warm {
            return None;
        }
        let machines: Vec<_> = self.serving(pool, |nodes| nodes.map(|beat| beat.machine).collect());
        if machines.is_empty() {
            let message = format!("no executor of the pool {pool} with provider {provider} takes sandboxes");
            return Some(Hold { reason: HoldReason::NoNode, message });
        }
        let (cpus, memory) = (cpu_millis.div_ceil(1000), u64::from(memory_mib));
        // One that does not say what it has may have it.
        let fits = |machine: &Option<transport::Machine>| {
            machine.is_none_or(|machine| cpus <= machine.cpus && memory <= machine.memory_mib)
        };
        if machines.iter().any(fits) {
            return None;
        }
        let most_memory = machines.iter().flatten().map(|machine| machine.memory_mib).max().unwrap_or(0);
        let most_cpus = machines.iter().flatten().map(|machine| machine.cpus).max().unwrap_or(0);
        let message = format!(
            "no node has so much: memory_mb {memory} and vcpus {} are asked for, and the nodes have up to {most_memory} and {most_cpus}",
            f64::from(cpu_millis) / 1000.0
        );
        Some(Hold { reason: HoldReason::Unplaceable, message })
    }
}
