//! What happens to the machines that carry sandboxes.

use serde::{Deserialize, Serialize};

use super::{PoolName, ProviderName};
use crate::NodeId;

words! {
    /// What happens to a node.
    Node(NodeEvent) {
        Joined(NodeJoined) = "node.joined" [by_executors],
        Draining(NodeDraining) = "node.draining" [by_executors],
    }
}

/// `node.joined`: an executor is ready for work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeJoined {
    /// The node.
    pub node: NodeId,
    /// The box-makers it has.
    pub providers: Vec<ProviderName>,
    /// The pool that each of them serves, in the same order; absent in older events, where it is called as the provider.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolName>,
    /// How many sandboxes it takes.
    pub capacity: u32,
}

/// `node.draining`: it takes no new sandboxes and is about to leave; those it has live on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeDraining {
    /// The node.
    pub node: NodeId,
}
