//! Sandboxes: making, finding, destroying.

use std::time::Duration;

use api_types::{Admission, ExtendRequest, Pruned, Sandbox, SandboxState, SandboxStats, SpawnRequest};
use reqwest::Method;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::error::ClientError;
use crate::key::IdempotencyKey;
use crate::patience::Patience;

/// How often one that takes long to be made is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The longest page that a server gives.
const PAGE: usize = 1000;

/// Whether a sandbox is gone, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destroyed {
    /// It is.
    Gone,
    /// Its node is slow or away.
    Later,
}

impl Client {
    /// Makes a sandbox and waits until it runs.
    ///
    /// ```no_run
    /// # async fn example(client: client::Client) -> Result<(), client::ClientError> {
    /// let sandbox = client.spawn(&client::SpawnRequest::image("alpine:latest")).await?;
    /// client.run(&sandbox.id, &client::ExecRequest::shell("make test")).await?;
    /// client.destroy(&sandbox.id).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn spawn(&self, request: &SpawnRequest) -> Result<Sandbox, ClientError> {
        self.spawn_as(&IdempotencyKey::new(), request).await
    }

    /// The same with a given key: asked for again, even by another process, it is the same sandbox, not a second one.
    pub async fn spawn_as(
        &self,
        key: &IdempotencyKey,
        request: &SpawnRequest,
    ) -> Result<Sandbox, ClientError> {
        let post = || self.request_once(key, Method::POST, self.url(&["sandboxes"])).json(request);
        let mut sandbox: Sandbox = self.fetch_once(post).await?;
        // A server does not let a request wait for ever: it answers before a slow pull is over.
        loop {
            if sandbox.state == SandboxState::Error {
                let message = sandbox.message.unwrap_or_default();
                return Err(ClientError::NotMade { id: sandbox.id, message });
            }
            if sandbox.state != SandboxState::Creating {
                return Ok(sandbox);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
            match self.sandbox(&sandbox.id).await {
                Ok(newer) => sandbox = newer,
                Err(error) if error.is_passing() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// One sandbox. One that was destroyed is not found.
    pub async fn sandbox(&self, id: &str) -> Result<Sandbox, ClientError> {
        self.get(&["sandboxes", id]).await
    }

    /// Those that are there, the newest last.
    pub async fn sandboxes(&self) -> Result<Vec<Sandbox>, ClientError> {
        self.get(&["sandboxes"]).await
    }

    /// The last ones that were made, destroyed ones too, the newest first: at most so many.
    pub async fn past_sandboxes(&self, last: usize) -> Result<Vec<Sandbox>, ClientError> {
        self.past_sandboxes_as(last).await
    }

    /// The same, each read as the caller wants it.
    pub async fn past_sandboxes_as<T: DeserializeOwned>(&self, last: usize) -> Result<Vec<T>, ClientError> {
        let mut sandboxes = Vec::new();
        let mut before: Option<String> = None;
        loop {
            let limit = (last - sandboxes.len()).min(PAGE);
            let request = self
                .request(Method::GET, self.url(&["sandboxes"]))
                .query(&[("all", "true"), ("limit", &limit.to_string())])
                .query(&[("before", &before)]);
            let response = self.send(request).await?;
            let next = response.headers().get("x-next-before").and_then(|next| next.to_str().ok());
            before = next.map(str::to_owned);
            let page: Vec<T> = self.read(response).await?;
            sandboxes.extend(page);
            if before.is_none() || sandboxes.len() >= last {
                return Ok(sandboxes);
            }
        }
    }

    /// Destroys a sandbox.
    pub async fn destroy(&self, id: &str) -> Result<Destroyed, ClientError> {
        let response = self.send(self.request(Method::DELETE, self.url(&["sandboxes", id]))).await?;
        Ok(if response.status() == 202 { Destroyed::Later } else { Destroyed::Gone })
    }

    /// Destroys a sandbox of one's own, for as long as the server is away. One that is gone already is as good.
    pub async fn destroy_own(&self, id: &str, patience: Duration) -> Result<Destroyed, ClientError> {
        let mut patience = Patience::new(patience);
        loop {
            match self.destroy(id).await {
                Err(error) if error.is_not_found() => return Ok(Destroyed::Gone),
                // A conflict: it is not placed yet.
                Err(error) if error.is_passing() || error.is_conflict() => {
                    if !patience.again().await {
                        return Err(error);
                    }
                }
                outcome => return outcome,
            }
        }
    }

    /// Whether a spawn would be let in. Makes nothing.
    pub async fn admission(&self, request: &SpawnRequest) -> Result<Admission, ClientError> {
        let url = self.url(&["sandboxes", "admission"]);
        self.fetch(self.request(Method::POST, url).json(request)).await
    }

    /// What a sandbox uses right now.
    pub async fn sandbox_stats(&self, id: &str) -> Result<SandboxStats, ClientError> {
        self.get(&["sandboxes", id, "stats"]).await
    }

    /// Removes the tenant's sandboxes whose deadline has passed, and says how many. They go by themselves too.
    pub async fn prune(&self) -> Result<Pruned, ClientError> {
        self.fetch(self.request(Method::DELETE, self.url(&["sandboxes"]))).await
    }

    /// Erases what a sandbox wrote and read, for ever: destroys the key that it is kept under.
    pub async fn erase(&self, id: &str) -> Result<(), ClientError> {
        self.send(self.request(Method::POST, self.url(&["sandboxes", id, "erase"]))).await.map(drop)
    }

    /// Gives a sandbox another time to live, counted from now, as a Go duration (`30m`).
    pub async fn extend(&self, id: &str, ttl: &str) -> Result<Sandbox, ClientError> {
        let body = ExtendRequest { ttl: Some(ttl.to_owned()) };
        self.fetch(self.request(Method::POST, self.url(&["sandboxes", id, "extend"])).json(&body)).await
    }
}
