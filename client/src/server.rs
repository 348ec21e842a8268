//! The server itself: whether it is well, what it has, what it may.

use std::collections::BTreeMap;

use api_types::{
    Diagnostics, Health, HostStats, Liveness, Metrics, PoolStatus, Provider, ProviderDetail, Quota,
    QuotaSummary, QuotaUsage, Readiness, Snapshot, Ticket,
};
use reqwest::Method;

use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// How the server is. Needs no key.
    pub async fn health(&self) -> Result<Health, ClientError> {
        self.get(&["health"]).await
    }

    /// Whether its process answers. Needs no key.
    pub async fn live(&self) -> Result<Liveness, ClientError> {
        self.get(&["live"]).await
    }

    /// Whether it can carry out requests, proven by a message that went through the log. Needs no key. Where it cannot, this
    /// is an error that names the reasons, and [`ClientError::is_passing`].
    pub async fn ready(&self) -> Result<Readiness, ClientError> {
        self.get(&["ready"]).await
    }

    /// How everything stands, without a secret in it.
    pub async fn diagnostics(&self) -> Result<Diagnostics, ClientError> {
        self.get(&["diagnostics"]).await
    }

    /// How busy the machine of the gateway is. For operators.
    pub async fn host_stats(&self) -> Result<HostStats, ClientError> {
        self.get(&["system", "stats"]).await
    }

    /// A few numbers about the server.
    pub async fn metrics(&self) -> Result<Metrics, ClientError> {
        self.get(&["metrics"]).await
    }

    /// All of its numbers, in the text form of Prometheus.
    pub async fn prometheus(&self) -> Result<String, ClientError> {
        let request = self.request(Method::GET, self.url(&["metrics", "prometheus"]));
        let bytes = self.download(request).await?.bytes().await?;
        String::from_utf8(bytes.into()).map_err(|error| ClientError::unexpected("text", error))
    }

    /// The box-makers, over all nodes.
    pub async fn providers(&self) -> Result<Vec<Provider>, ClientError> {
        self.get(&["providers"]).await
    }

    /// One box-maker, with what it has.
    pub async fn provider(&self, name: &str) -> Result<ProviderDetail, ClientError> {
        self.get(&["providers", name]).await
    }

    /// Whether each box-maker works.
    pub async fn test_providers(&self) -> Result<BTreeMap<String, bool>, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["providers", "test"]))).await
    }

    /// Whether machines are shared between users.
    pub async fn pool_status(&self) -> Result<PoolStatus, ClientError> {
        self.get(&["pool", "status"]).await
    }

    /// Prepared machines.
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, ClientError> {
        self.get(&["snapshots"]).await
    }

    /// What each owner with a quota may have.
    pub async fn quotas(&self) -> Result<Vec<Quota>, ClientError> {
        self.get(&["quotas"]).await
    }

    /// How many owners have quotas.
    pub async fn quota_summary(&self) -> Result<QuotaSummary, ClientError> {
        self.get(&["quotas", "summary"]).await
    }

    /// What one owner may have, where it has a quota of its own.
    pub async fn quota(&self, owner: &str) -> Result<Quota, ClientError> {
        self.get(&["quotas", owner]).await
    }

    /// What one owner has, and may have.
    pub async fn quota_usage(&self, owner: &str) -> Result<QuotaUsage, ClientError> {
        self.get(&["quotas", owner, "usage"]).await
    }

    /// A ticket for one WebSocket, good once and for 60 s: for a browser, which can send no key.
    pub async fn ticket(&self) -> Result<Ticket, ClientError> {
        self.fetch(self.request(Method::POST, self.url(&["tickets"]))).await
    }
}
