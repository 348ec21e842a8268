//! Names of subjects, streams and consumers in NATS.
//!
//! Everything lives under one prefix, so that several deployments (and tests) can share a server:
//! `PREFIX.cmd.spawn.POOL`, `PREFIX.cmd.node.NODE.VERB`, `PREFIX.evt.TENANT.SANDBOX.CATEGORY` (and, where an executor says it,
//! `PREFIX.evt.@.NODE.TENANT.SANDBOX.CATEGORY`: no tenant has that name, and a server can tell who may say it), `PREFIX.feed`,
//! `PREFIX.recorded`, `PREFIX.progress`, `PREFIX.offer.NODE`, `PREFIX.link.NODE`, `PREFIX.query`, `PREFIX.beat.NODE`, `PREFIX.lease.NAME`,
//! `PREFIX.cursor.NAME`, `PREFIX.sealed.JOB`.

use crate::{EventId, JobId, NodeId, PoolName, SandboxId, TenantId};

/// The names of one deployment.
#[derive(Debug, Clone)]
pub struct Subjects {
    prefix: String,
}

impl Subjects {
    /// Names under `prefix`, which is one subject token.
    pub fn new(prefix: &TenantId) -> Self {
        Self { prefix: prefix.as_str().to_owned() }
    }

    /// The stream of commands.
    pub fn commands_stream(&self) -> String {
        format!("{}-COMMANDS", self.prefix.to_uppercase())
    }

    /// The stream of events that are on their way to the store.
    pub fn events_stream(&self) -> String {
        format!("{}-EVENTS", self.prefix.to_uppercase())
    }

    /// The stream of messages that nobody could read.
    pub fn dead_stream(&self) -> String {
        format!("{}-DEAD", self.prefix.to_uppercase())
    }

    /// The stream of one-time things that were used.
    pub fn spent_stream(&self) -> String {
        format!("{}-SPENT", self.prefix.to_uppercase())
    }

    /// All one-time things that were used.
    pub fn spent(&self) -> String {
        format!("{}.spent.*", self.prefix)
    }

    /// One of them.
    pub fn spent_of(&self, id: EventId) -> String {
        format!("{}.spent.{id}", self.prefix)
    }

    /// The stream of what jobs know and the log does not.
    pub fn sealed_stream(&self) -> String {
        format!("{}-SEALED", self.prefix.to_uppercase())
    }

    /// What all jobs know.
    pub fn sealed(&self) -> String {
        format!("{}.sealed.*", self.prefix)
    }

    /// What one of them knows.
    pub fn sealed_of(&self, job: JobId) -> String {
        format!("{}.sealed.{job}", self.prefix)
    }

    /// All commands.
    pub fn commands(&self) -> String {
        format!("{}.cmd.>", self.prefix)
    }

    /// All events.
    pub fn events(&self) -> String {
        format!("{}.evt.>", self.prefix)
    }

    /// Where messages go that only find out whether what is published gets recorded. No event has a subject this short.
    pub fn probe(&self) -> String {
        format!("{}.evt.probe", self.prefix)
    }

    /// All unreadable messages.
    pub fn dead(&self) -> String {
        format!("{}.dead.>", self.prefix)
    }

    /// Where unreadable messages of one kind go.
    pub fn dead_of(&self, kind: &str) -> String {
        format!("{}.dead.{kind}", self.prefix)
    }

    /// Commands that any executor of a pool may take.
    pub fn spawn(&self, pool: &PoolName) -> String {
        format!("{}.cmd.spawn.{pool}", self.prefix)
    }

    /// One verb for the executor that has the sandbox.
    pub fn node_command(&self, node: &NodeId, verb: &str) -> String {
        format!("{}.cmd.node.{node}.{verb}", self.prefix)
    }

    /// All verbs for a node.
    pub fn node_commands(&self, node: &NodeId) -> String {
        format!("{}.cmd.node.{node}.>", self.prefix)
    }

    /// Where the events of a sandbox (or, without one, of a tenant) are published.
    pub fn event(&self, tenant: &TenantId, sandbox: Option<SandboxId>, category: &str) -> String {
        match sandbox {
            Some(sandbox) => format!("{}.evt.{tenant}.{sandbox}.{category}", self.prefix),
            None => format!("{}.evt.{tenant}._.{category}", self.prefix),
        }
    }

    /// The same where the executor of this node publishes them.
    pub fn event_of_node(
        &self,
        node: &NodeId,
        tenant: &TenantId,
        sandbox: Option<SandboxId>,
        category: &str,
    ) -> String {
        let sandbox = sandbox.map_or_else(|| "_".to_owned(), |sandbox| sandbox.to_string());
        format!("{}.evt.@.{node}.{tenant}.{sandbox}.{category}", self.prefix)
    }

    /// The node whose executor published on this subject; `None` for all others.
    pub fn node_of_event<'a>(&self, subject: &'a str) -> Option<&'a str> {
        let rest = subject.strip_prefix(self.prefix.as_str())?.strip_prefix(".evt.@.")?;
        Some(rest.split_once('.').map_or(rest, |(node, _)| node))
    }

    /// Where the executor of a node shows the recorder short batches of events that are not in the stream of events, or not yet.
    pub fn offer(&self, node: &NodeId) -> String {
        format!("{}.offer.{node}", self.prefix)
    }

    /// What all nodes show.
    pub fn offers(&self) -> String {
        format!("{}.offer.*", self.prefix)
    }

    /// The node whose executor offered on this subject.
    pub fn node_of_offer<'a>(&self, subject: &'a str) -> Option<&'a str> {
        subject.strip_prefix(self.prefix.as_str())?.strip_prefix(".offer.")
    }

    /// Recorded events with their positions, announced by the recorder.
    pub fn feed(&self) -> String {
        format!("{}.feed", self.prefix)
    }

    /// Up to which message the stream of events is recorded, said by the recorder.
    pub fn recorded(&self) -> String {
        format!("{}.recorded", self.prefix)
    }

    /// How far execs are recorded, said by the recorder.
    pub fn progress(&self) -> String {
        format!("{}.progress", self.prefix)
    }

    /// The stream of cursors.
    pub fn cursors_stream(&self) -> String {
        format!("{}-CURSORS", self.prefix.to_uppercase())
    }

    /// All cursors.
    pub fn cursors(&self) -> String {
        format!("{}.cursor.*", self.prefix)
    }

    /// How far whoever acts under this name is.
    pub fn cursor(&self, name: &str) -> String {
        format!("{}.cursor.{name}", self.prefix)
    }

    /// The stream of leases.
    pub fn leases_stream(&self) -> String {
        format!("{}-LEASES", self.prefix.to_uppercase())
    }

    /// All leases.
    pub fn leases(&self) -> String {
        format!("{}.lease.*", self.prefix)
    }

    /// Who does some work that only one should do.
    pub fn lease(&self, name: &str) -> String {
        format!("{}.lease.{name}", self.prefix)
    }

    /// Requests that the recorder answers from the store.
    pub fn query(&self) -> String {
        format!("{}.query", self.prefix)
    }

    /// Requests to the executor of a node: files, input, statistics.
    pub fn link(&self, node: &NodeId) -> String {
        format!("{}.link.{node}", self.prefix)
    }

    /// Signs of life of a node.
    pub fn heartbeat(&self, node: &NodeId) -> String {
        format!("{}.beat.{node}", self.prefix)
    }

    /// Signs of life of all nodes.
    pub fn heartbeats(&self) -> String {
        format!("{}.beat.*", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_executor_says_can_be_told_from_what_others_say() {
        let subjects = Subjects::new(&"test".parse().unwrap());
        let (node, tenant) = ("node-1".parse().unwrap(), "red".parse().unwrap());
        let of_node = subjects.event_of_node(&node, &tenant, None, "exec");
        assert_eq!(of_node, "test.evt.@.node-1.red._.exec");
        assert_eq!(subjects.node_of_event(&of_node), Some("node-1"));
        for other in
            [subjects.event(&tenant, None, "exec"), subjects.probe(), "other.evt.@.node-1.x".to_owned()]
        {
            assert_eq!(subjects.node_of_event(&other), None, "{other}");
        }
        let offer = subjects.offer(&node);
        assert_eq!((offer.as_str(), subjects.node_of_offer(&offer)), ("test.offer.node-1", Some("node-1")));
        assert_eq!(subjects.node_of_offer(&of_node), None);
        // No tenant can be taken for it.
        assert!("@".parse::<TenantId>().is_err());
    }
}
